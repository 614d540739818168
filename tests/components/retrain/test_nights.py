"""Three nights of retraining, one step after the other in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from arco_core.config import ConfigError
from arco_core.errors import DataError
from arco_core.model_package import load_package
from components.cli import main as arco
from components.model_ref import ModelRef
from components.prepare import prepare
from components.publish.step import provenance_of, write_package
from components.retrain.plan import Plan, RetrainSettings, lease_of, registry_of
from components.retrain.release import release
from components.retrain.report import Outcome
from components.retrain.steps import check_settings, discover_step, end_step
from components.retrain.update import continue_training, extend
from components.training_options import TrainingOptions, train
from infra.checkpoints import read_checkpoint
from infra.datasets import DatasetVersion
from infra.registry import Registry
from infra.storage import Store
from infra.training.load import load_networks
from infra.training.stage_job import StageJob
from tests.conftest import TINY_SETTINGS, write_msd_folder

SETTINGS = (*TINY_SETTINGS, "data.validation_fraction=0.0", "data.test_fraction=0.4", 'data.name="heart"')


class Service:
    """A store with a model in service, and the folder that scans arrive in."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw"
        if not self.raw.exists():
            write_msd_folder(self.raw, patients=8, labeled=8)
        self.store = folder / "store"
        self.options: dict[str, Any] = {
            "raw": str(self.raw), "store": str(self.store), "name": "heart", "settle_minutes": 0.0,
            "min_patients": 2, "margin": 1.0 - 1e-9,
        }  # fmt: skip

    @property
    def settings(self) -> RetrainSettings:
        return RetrainSettings(**self.options)

    @property
    def registry(self) -> Registry:
        return registry_of(self.settings)

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

    def add(self, number: int, *, labeled: bool = True, seed: int = 0, damage: bool = False) -> None:
        """A scan that arrives."""
        name = f"case_{number:03d}.nii.gz"
        rng = np.random.default_rng(100 + number + seed)
        rows, columns = np.mgrid[:32, :32]
        distance = np.hypot(rows - rng.uniform(12, 20), columns - rng.uniform(12, 20))
        plane = np.where(distance < 4, 2, np.where(distance < 8, 1, 0)).astype(np.uint8)
        label = np.repeat(plane[:, :, None], 4, axis=2)
        image = (label * 100 + rng.normal(0, 20, size=label.shape)).astype(np.float32)
        affine = np.diag([1.5, 1.5, 8.0, 1.0])
        part = "imagesTr" if labeled else "imagesUn"
        path = self.raw / part / name
        nib.save(nib.Nifti1Image(image, affine), path)
        if labeled:
            nib.save(nib.Nifti1Image(label, affine), self.raw / "labelsTr" / name)
        if damage:
            path.write_bytes(b"no scan at all")

    def night(self, holder: str, **changes: Any) -> Outcome | None:
        """What the pipeline does, with one process for all steps; the outcome, unless nothing is new."""
        options = self.options | changes
        new, plan = discover_step("in-process", [], holder, **options)
        if not new:
            return None
        dataset = extend(plan, backend="in-process")
        if dataset is not None:
            checkpoint = continue_training(plan, dataset, backend="in-process")
            release(plan, dataset, checkpoint)
        end_step(holder, "no reason", **{key: options[key] for key in ("raw", "store", "name")})
        return Outcome.read(Plan.load(plan).run)


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


def test_three_nights(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(begun)
    first = service.registry.current()
    assert first is not None and first.split == "test" and len(first.frozen) == 3

    # New scans, one of them late: the others are trained on, and the model takes the old one's place.
    service.add(10)
    service.add(11, labeled=False)
    promoted = service.night("night 1")
    assert promoted is not None and promoted.decision == "promoted", promoted
    second = service.registry.current()
    assert second is not None and (second.number, second.parent, second.frozen) == (2, 1, first.frozen)
    job = StageJob.from_json(read_checkpoint(second.checkpoint)["job"])
    assert job.continued and job.init_checkpoint == first.checkpoint
    assert {"case_010"} <= {*job.labeled_patients, *DatasetVersion.open(second.dataset).patients("test")}
    lineage = load_package(Path(second.model)).metadata["provenance"]
    assert lineage["parent_model"] == first.model and lineage["new_scans"] == ["case_010", "case_011"]
    old, new = (DatasetVersion.open(r.dataset) for r in (first, second))
    assert {s.path for s in old.manifest.shards} < {s.path for s in new.manifest.shards}
    assert second.report is not None and "Dice in service" in Path(second.report).read_text()

    # Nothing new, though a scan is there under a second name.
    shutil.copy(service.raw / "imagesUn/case_011.nii.gz", service.raw / "imagesUn/again.nii.gz")
    assert service.night("night 2") is None
    assert "nothing new" in capsys.readouterr().out
    assert service.registry.current() == second

    # Garbage: no scan at all; then a model that the rule does not let pass. The one in service stays.
    service.add(12, labeled=False, damage=True)
    bad = service.night("night 3")
    assert bad is not None and bad.decision == "bad scans"
    assert "ALERT" in capsys.readouterr().out
    service.add(13)
    kept = service.night("night 4", margin=0.0, min_patients=4)
    assert kept is not None and kept.decision == "kept"
    assert kept.left_out["case_012"].startswith("bad: ")
    assert service.registry.current() == second
    assert service.night("night 5", margin=0.0, min_patients=4) is None  # the same scans, judged before
    assert len(list((service.store / "service/heart/alerts").iterdir())) == 2

    # And back with one command.
    arco(["model", "rollback", "--store", str(service.store), "--name", "heart"])
    third = service.registry.current()
    assert third is not None and (third.number, third.action, third.model) == (3, "rollback", first.model)
    arco(["model", "ls", "--store", str(service.store), "--name", "heart"])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        "promote", "promote", "rollback",
    ]  # fmt: skip


def test_scans_wait_until_they_lie_still(begun: Path) -> None:
    service = Service(begun)
    service.add(20)
    assert service.night("waiting", settle_minutes=60.0) is None
    (report,) = [
        f for f in (service.store / "service/heart/nights").glob("*report.md") if "case_020" in f.read_text()
    ]
    assert "case_020: waits: written " in report.read_text()


def test_two_at_a_time_one_stops(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(begun)
    lease = lease_of(service.settings)
    number = lease.claim("somebody else")
    assert service.night("late") is None
    assert "busy" in capsys.readouterr().out
    lease.release(number)


def test_a_night_that_fails_is_told_and_gives_its_lease_back(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(begun)
    service.add(21)
    before = service.registry.current()
    where = {key: service.options[key] for key in ("raw", "store", "name")}
    new, plan = discover_step("in-process", [], "broken", **service.options)
    assert new and service.night("meanwhile") is None
    end_step(
        "broken",
        "FAILED: training diverged",
        raw=service.options["raw"],
        store=service.options["store"],
        name="heart",
    )
    outcome = Outcome.read(Plan.load(plan).run)
    assert outcome is not None and outcome.decision == "failed" and "training diverged" in outcome.reason
    assert service.registry.current() == before
    again, _ = discover_step(
        "in-process", [], "next", **service.options
    )  # a failure is no judgement: tried again
    assert again == new
    end_step("next", "", **where)


def test_without_a_model_in_service(begun: Path) -> None:
    with pytest.raises(DataError, match="no model named 'liver' is in service"):
        discover_step("in-process", [], "x", **Service(begun).options | {"name": "liver"})


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
