"""Nights of retraining, with the default rule: one by the pipeline itself, the others step by step."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from arco_core.config import ConfigError
from arco_core.errors import DataError, StoreError
from arco_core.model_package import load_package
from components.cli import main as arco
from components.model_ref import ModelRef
from components.prepare.step import prepare
from components.publish.step import provenance_of, write_package
from components.retrain import discover as discover_module
from components.retrain import release as release_module
from components.retrain.__main__ import main as judge_job
from components.retrain.plan import Plan, RetrainSettings, lease_of, registry_of
from components.retrain.release import release_on
from components.retrain.report import Outcome, finish
from components.retrain.steps import check_settings, discover_step, end_step
from components.retrain.update import continue_training, extend, remember
from components.training_options import TrainingOptions, train
from infra.checkpoints import read_checkpoint
from infra.datasets import DatasetVersion
from infra.registry import Registry, Release
from infra.storage import Store
from infra.training.load import load_networks
from infra.training.stage_job import StageJob
from tests.conftest import TINY_SETTINGS, write_msd_folder

ROOT = Path(__file__).parents[3]
SETTINGS = (
    *TINY_SETTINGS, "data.validation_fraction=0.0", "data.test_fraction=0.5", 'data.name="heart"',
    "finetune.steps=40",
)  # fmt: skip


class Service:
    """A store with a model in service, and the folder that scans arrive in."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw"
        if not self.raw.exists():
            write_msd_folder(self.raw, patients=11, labeled=10)
        self.store = folder / "store"
        self.where = {"raw": str(self.raw), "store": str(self.store), "name": "heart"}

    @property
    def registry(self) -> Registry:
        return registry_of(RetrainSettings(**self.where))

    @property
    def current(self) -> Release:
        release = self.registry.current()
        assert release is not None
        return release

    @property
    def alerts(self) -> int:
        return len(Store(str(self.store)).list("service/heart/alerts"))

    def begin(self) -> None:
        """Train and publish a first model, and put it into service."""
        dataset = prepare(
            data=str(self.raw), store=str(self.store), preset="generic", overrides=SETTINGS, use_ray=False
        )
        run = f"{self.store}/runs/first"
        options = TrainingOptions(
            dataset=dataset, run=run, preset="generic", overrides=SETTINGS, backend="in-process"
        )
        checkpoint = train("finetune", options, init=train("pretrain", options))
        networks, version = load_networks(checkpoint), DatasetVersion.open(dataset)
        ref = ModelRef(method="arco-sg", seed=0, checkpoint=checkpoint)
        write_package(
            Store(run), networks, version, metrics={}, provenance=provenance_of(ref, networks[2], version)
        )
        arco(["model", "promote", "--store", str(self.store), "--name", "heart", "--run", run])

    def add(self, number: int, *, labeled: bool = True, late: bool = False, wrong: bool = False) -> str:
        """A scan that arrives; `late` just now, else hours ago. With `wrong`, its annotation is noise."""
        name = f"case_{number:03d}.nii.gz"
        rng = np.random.default_rng(100 + number)
        rows, columns = np.mgrid[:32, :32]
        distance = np.hypot(rows - rng.uniform(12, 20), columns - rng.uniform(12, 20))
        plane = np.where(distance < 4, 2, np.where(distance < 8, 1, 0)).astype(np.uint8)
        label = np.repeat(plane[:, :, None], 4, axis=2)
        image = (label * 100 + rng.normal(0, 20, size=label.shape)).astype(np.float32)
        if wrong:
            label = rng.integers(0, 3, size=label.shape).astype(np.uint8)
        files = {self.raw / ("imagesTr" if labeled else "imagesUn") / name: image}
        files |= {self.raw / "labelsTr" / name: label} if labeled else {}
        for path, voxels in files.items():
            nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 8.0, 1.0])), path)
            self.age(path, 0.0 if late else 7200.0)
        return f"case_{number:03d}"

    def age(self, path: Path, seconds: float) -> None:
        """Have a file be written `seconds` ago."""
        os.utime(path, (time.time() - seconds,) * 2)

    def remove(self, *names: str) -> None:
        for name in names:
            for path in self.raw.rglob(f"{name}.nii.gz"):
                path.unlink()

    def discover(self, holder: str, **changes: Any) -> str:
        """URL of the plan, empty where there is nothing to do."""
        return discover_step("in-process", [], holder, **self.where | changes)[1]

    def end(self, holder: str, state: str = "SUCCEEDED", error: str = "") -> None:
        end_step(holder, state, error, **self.where)

    def night(self, holder: str, **changes: Any) -> Outcome | None:
        """What the pipeline does, with one process for all steps; the outcome, unless nothing is new."""
        plan = self.discover(holder, **changes)
        return self.go_on(holder, plan) if plan else None

    def go_on(self, holder: str, plan: str) -> Outcome | None:
        """What the pipeline does after discovery."""
        dataset = extend(plan, backend="in-process")
        if dataset is not None:
            release_on("in-process", plan, dataset, continue_training(plan, dataset, backend="in-process"))
        self.end(holder)
        return Outcome.read(Plan.load(plan).run)

    def last_report(self) -> str:
        """Of the nights that began no work."""
        return max((self.store / "service/heart/nights").glob("*report.md")).read_text()


@pytest.fixture(autouse=True)
def files_lie_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.storage.local.FRESH_SECONDS", -1e9)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.storage.local.FRESH_SECONDS", -1e9)
        Service(folder).begin()
    return folder


@pytest.fixture
def service(begun: Path) -> Service:
    return Service(begun)


def test_scans_wait_until_they_lie_still(service: Service) -> None:
    late = service.add(20, late=True)
    assert service.night("waiting") is None
    assert f"{late}: waits: written " in service.last_report()
    service.remove(late)


def test_a_series_waits_for_the_next_night(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a DICOM series looks like a scan: it must be found the same in two nights."""
    read = discover_module.read_raw

    def as_series(*given: Any) -> Any:
        dataset = read(*given)
        two = [dataclasses.replace(c, channels=(TwoFiles(c.channels[0]),)) for c in dataset.cases]
        return dataclasses.replace(dataset, cases=tuple(two))

    first = service.add(22, labeled=False)
    monkeypatch.setattr(discover_module, "read_raw", as_series)
    assert not service.discover("half")
    assert f"{first}: waits: 2 files" in service.last_report()
    service.age(service.raw / f"imagesUn/{first}.nii.gz", 3600.0)  # the rest arrives, and tags change
    assert not service.discover("the rest")
    assert service.discover("whole") and service.discover("whole")
    service.end("whole")
    service.remove(first)


class TwoFiles:
    """A volume whose file counts twice."""

    def __init__(self, volume: Any) -> None:
        self.paths, self.digest = volume.paths * 2, volume.digest


def test_two_at_a_time_one_stops(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    lease = lease_of(RetrainSettings(**service.where))
    number = lease.claim("somebody else")
    assert service.night("late") is None
    assert "busy" in capsys.readouterr().out
    lease.release(number)


def test_every_failure_is_told_and_the_scans_are_tried_again(service: Service) -> None:
    new, before, alerts = service.add(21), service.current, service.alerts
    for number in (1, 2):  # the second one has the same scans, and the first one's outcome in its folder
        plan = service.discover(f"broken {number}")
        service.end(f"broken {number}", "FAILED", f"training diverged {number}")
        outcome = Outcome.read(Plan.load(plan).run)
        assert outcome is not None and outcome.decision == "failed" and outcome.new == (new,)
        assert outcome.reason == f"FAILED: training diverged {number}"
        assert service.alerts == alerts + number
    service.end("broken 2", "SUCCEEDED")  # told already
    assert service.alerts == alerts + 2 and service.current == before
    service.remove(new)


def test_a_discovery_that_fails_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*given: object) -> None:
        raise StoreError("the store is away")

    alerts = service.alerts
    monkeypatch.setattr(discover_module, "read_raw", away)
    with pytest.raises(StoreError):
        service.discover("blind")
    service.end("blind", "FAILED", "the store is away")
    assert service.alerts == alerts + 1 and "FAILED: the store is away" in service.last_report()
    service.end("never began", "FAILED")
    assert service.alerts == alerts + 2
    monkeypatch.undo()
    assert not service.discover("next")  # the lease was given back


def test_a_promotion_that_was_cut_off_is_finished(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between promotion and report, or after the report: what was decided is what is told."""
    before, new = service.current, service.add(23)
    plan = service.discover("cut off")
    dataset = extend(plan, backend="in-process")
    assert dataset is not None
    same = before.checkpoint  # no worse than itself
    finish = release_module.finish

    def killed(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(release_module, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        release_on("in-process", plan, dataset, same)
    promoted = service.current
    assert promoted.number == before.number + 1
    monkeypatch.setattr(release_module, "finish", finish)
    monkeypatch.setattr(release_module, "judge", killed)  # judged it was
    for _ in range(2):
        outcome = release_on("in-process", plan, dataset, same)
        assert (outcome.decision, outcome.in_service) == ("promoted", promoted.number)
        assert [row["passes"] for row in outcome.classes] == [True, True]
    result = f"{service.store}/jobs/result.json"
    judge_job(["--plan", plan, "--dataset", dataset, "--checkpoint", same, "--result", result])
    assert json.loads(Path(result).read_text()) == {"url": "promoted"}
    assert service.current == promoted and promoted.parent == before.number
    service.remove(new)


def test_scans_that_were_judged_beside_a_bad_one_are_not_judged_again(service: Service) -> None:
    good, bad = service.add(24), service.add(25)
    plan = Plan.load(service.discover("mixed"))
    remember(plan, {bad: "bad: torn"}, judged=[good])
    outcome = Outcome(name="heart", decision="kept", reason="worse", release=plan.release, lease=plan.lease)
    finish(plan.settings, outcome, run=plan.run, alert=True)
    service.end("mixed")
    assert not service.discover("next")
    report = service.last_report()
    assert "the same 1 scans were judged before (kept)" in report and f"{bad}: known: bad: torn" in report
    service.remove(good, bad)


def test_without_a_model_in_service(service: Service) -> None:
    with pytest.raises(DataError, match="no model named 'liver' is in service"):
        service.discover("x", name="liver")


@pytest.mark.slow
def test_nights(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    first, alerts = service.current, service.alerts
    assert first.split == "test" and len(first.frozen) == 5

    # The pipeline itself: new scans are trained on and the model takes the old one's place; one is late.
    service.add(30)
    service.add(31, labeled=False)
    late = service.add(32, late=True)
    line = [sys.executable, "-m", "pipelines.arco_retrain", "run", "--backend", "in-process"]
    line += [text for key, value in service.where.items() for text in (f"--{key}", value)]
    run = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    second = service.current
    assert (second.number, second.parent, second.frozen) == (first.number + 1, first.number, first.frozen)
    job = StageJob.from_json(read_checkpoint(second.checkpoint)["job"])
    assert job.continued and job.init_checkpoint == first.checkpoint
    lineage = load_package(Path(second.model)).metadata["provenance"]
    assert lineage["parent_model"] == first.model and lineage["new_scans"] == ["case_030", "case_031"]
    old, new = (DatasetVersion.open(r.dataset) for r in (first, second))
    assert {s.path for s in old.manifest.shards} < {s.path for s in new.manifest.shards}
    assert late not in {case.case_id for case in new.cases}
    assert second.report is not None and "Dice in service" in Path(second.report).read_text()

    # A night later, so does the late one; one that arrives after discovery is left to the next night.
    service.age(service.raw / f"imagesTr/{late}.nii.gz", 7200.0)
    service.age(service.raw / f"labelsTr/{late}.nii.gz", 7200.0)
    plan = service.discover("night 2")
    after = service.add(33)
    promoted = service.go_on("night 2", plan)
    assert promoted is not None and promoted.decision == "promoted" and promoted.new == (late,), promoted
    third, held = (
        service.current,
        {case.case_id for case in DatasetVersion.open(promoted.dataset or "").cases},
    )
    assert late in held and after not in held
    assert {row["best_release"] for row in promoted.classes} == {first.number}
    service.remove(after)

    # Nothing new, though a scan is there under a second name.
    shutil.copy2(service.raw / "imagesUn/case_031.nii.gz", service.raw / "imagesUn/again.nii.gz")
    assert service.night("night 3") is None
    assert "nothing new" in capsys.readouterr().out and service.alerts == alerts

    # Garbage: a file that is no scan, and annotations of noise. The model in service stays.
    bad = service.add(40, labeled=False)
    (service.raw / f"imagesUn/{bad}.nii.gz").write_bytes(b"no scan at all")
    service.age(service.raw / f"imagesUn/{bad}.nii.gz", 7200.0)
    for number in range(41, 49):
        service.add(number, wrong=True)
    kept = service.night("night 4")
    assert kept is not None and kept.decision == "kept", kept
    assert kept.left_out[bad].startswith("bad: ")
    assert service.current == third and service.alerts == alerts + 1
    assert service.night("night 5") is None and service.alerts == alerts + 1  # told once
    assert f"{bad}: known: bad: " in service.last_report()

    # Back with one command, until there are scans that were never judged.
    arco(["model", "rollback", "--store", str(service.store), "--name", "heart"])
    back = service.current
    assert (back.action, back.model) == ("rollback", second.model)
    assert service.night("night 6") is None and "a rollback holds" in service.last_report()
    service.add(50)
    plan = service.discover("night 7")
    assert plan and Plan.load(plan).release == back.number
    service.end("night 7")
    arco(["model", "ls", "--store", str(service.store), "--name", "heart"])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        "promote", "promote", "rollback",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"margin": -0.1}, "margin = -0.1"),
        ({"min_patients": 1}, "min_patients = 1: must be at least 2"),
        ({"settle_minutes": float("nan")}, "settle_minutes = nan"),
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"labeled": 2.5}, "labeled = 2.5"),
    ],
)
def test_impossible_parameters(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    settings = RetrainSettings(**{"raw": "r", "store": "s", "name": "heart"} | change)
    with pytest.raises(ConfigError, match=text):
        check_settings(settings, "ray")
