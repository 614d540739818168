"""`arco data`, as a user calls it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import boto3
import pytest

from arco_core.config import load
from components.cli import main
from infra.datasets import DatasetVersion, prepare_dataset
from infra.storage import Store
from tests.conftest import TINY_SETTINGS, write_msd_folder


@pytest.fixture
def version(tiny_dataset: str, tmp_path: Path) -> Path:
    """A version in a store of its own, to be spoilt."""
    store = Path(shutil.copytree(Path(tiny_dataset).parents[2], tmp_path / "store"))
    return store / Path(tiny_dataset).relative_to(Path(tiny_dataset).parents[2])


def arco(*arguments: str | Path) -> int:
    """The exit code of `arco data …`."""
    try:
        main(["data", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_ls_names_every_version(version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arco("ls", "--store", version.parents[2]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if version.name in line)
    cells = [cell.strip() for cell in row.split("│")]
    assert cells[1:3] == ["dataset", version.name]
    assert cells[4:10] == ["5", "1", "0", "4", "6", "24"]
    assert arco("ls", "other", "--store", version.parents[2]) == 0
    assert "no dataset versions below" in capsys.readouterr().out


def test_a_version_is_named_by_url_or_by_name(version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", str(version.parents[2]))
    for text in (str(version), "dataset", f"dataset/{version.name}", f"dataset/{version.name[:4]}"):
        assert arco("show", text, *store) == 0
        assert str(version) in capsys.readouterr().out
    assert arco("show", "dataset/zzz", *store) == 2
    assert "has no dataset version 'dataset/zzz': see what there is" in capsys.readouterr().err


def test_show_tells_splits_shards_and_settings(version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arco("show", version)
    out = capsys.readouterr().out
    for words in ("validation", "labeled", "this version", "0 background, 1 ring, 2 core", "image_size"):
        assert words in out


def test_show_tells_why_a_scan_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_msd_folder(tmp_path / "raw")
    (raw / "imagesUn" / "case_005 [b].nii.gz").touch()
    config = load(preset="generic", overrides=[*TINY_SETTINGS, "data.max_failures=1"]).data
    made = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
    arco("show", made.url)
    out = capsys.readouterr().out
    assert "1 scans" in out and "case_005 [b]" in out and "nii.gz is empty (0 bytes): copy or export" in out


@pytest.mark.parametrize("quick", [False, True])
def test_verify_of_a_whole_version(version: Path, quick: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert arco("verify", version, *["--quick"] * quick) == 0
    assert ("sha256" in capsys.readouterr().out) == (not quick)


@pytest.mark.parametrize("damage", ["missing", "short", "changed", "cases"])
def test_verify_names_what_is_damaged(version: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    shard = version.parent / DatasetVersion.open(str(version)).manifest.shards[0].path
    data = bytearray(shard.read_bytes())
    data[100] ^= 255
    match damage:
        case "missing":
            shard.unlink()
        case "short":
            shard.write_bytes(data[:-5])
        case "changed":
            shard.write_bytes(data)
        case _:
            shard = next(version.glob("cases-*.parquet"))
            shard.write_bytes(b"")
    assert arco("verify", version) == 1
    assert str(shard) in capsys.readouterr().out
    assert arco("verify", version, "--quick") == (0 if damage == "changed" else 1)


@pytest.fixture
def grown(version: Path, tmp_path: Path) -> Path:
    """A second version, that goes on from `version`: one scan more, one annotation less, one changed."""
    raw = write_msd_folder(tmp_path / "raw", patients=7)
    labels = raw / "labelsTr"
    (labels / "case_001.nii.gz").write_bytes((labels / "case_002.nii.gz").read_bytes())
    shutil.move(raw / "imagesTr" / "case_000.nii.gz", raw / "imagesUn")
    (labels / "case_000.nii.gz").unlink()
    config = load(preset="generic", overrides=TINY_SETTINGS)
    made = prepare_dataset(str(raw), Store(str(version.parents[2])), config.data, use_ray=False)
    assert made.manifest.parent == version.name
    return Path(made.url)


def objects(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def test_diff_names_what_differs(version: Path, grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arco("diff", version, grown) == 0
    out = capsys.readouterr().out
    assert "scans: 1 added, 2 changed" in out
    rows = {cells[2]: (cells[1], cells[3]) for cells in map(_cells, out.splitlines()) if len(cells) > 4}
    assert rows["case_006"] == ("added", "")
    assert rows["case_000"] == ("changed", "no longer annotated")
    assert rows["case_001"] == ("changed", "annotation")
    assert "kB of shards are shared" in out
    assert arco("diff", version, version) == 0
    assert "the same scans, patients and settings" in capsys.readouterr().out


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")]


def test_diff_names_settings(version: Path, tiny_raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(preset="generic", overrides=[*TINY_SETTINGS, "data.image_size=[48,48]"])
    other = prepare_dataset(str(tiny_raw), Store(str(version.parents[2])), config.data, use_ray=False)
    assert arco("diff", version, other.url) == 0
    out = capsys.readouterr().out
    assert "image_size" in out and "(32, 32)" in out and "(48, 48)" in out and "added" not in out


def test_a_version_whose_shards_are_used_stays(
    version: Path, grown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = version.parents[2]
    before = objects(store)
    assert arco("rm", version, "--yes") == 2
    assert f"cannot be removed: dataset/{grown.name} uses its shards" in capsys.readouterr().err
    assert objects(store) == before
    assert arco("rm", grown) == 0
    assert "add --yes to do it" in capsys.readouterr().out
    assert objects(store) == before
    assert arco("rm", grown, "--yes") == 0
    assert arco("verify", version) == 0
    assert arco("rm", f"dataset/{version.name}", "--store", store, "--yes") == 0
    assert objects(store) == set()


def test_what_no_version_lists_is_removed_when_it_is_old(
    version: Path, grown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = version.parents[2]
    whole = objects(store)
    dead, alive = version.parent / "0123456789ab", version.parent / "ba9876543210"
    for number, folder in enumerate((dead, alive)):
        (folder / "labeled").mkdir(parents=True)
        for name in ("old", "new"):
            (folder / "labeled" / f"{name}.parquet").write_bytes(b"x" * 100)
        os.utime(folder / "labeled" / "old.parquet", (0, 0))
        (folder / f".arco-tmp-{number}").write_bytes(b"y" * 100)
    for name in ("labeled/old.parquet", "labeled/new.parquet", ".arco-tmp-0"):
        os.utime(dead / name, (0, 0))
    left = version / "labeled" / "99999-loser.parquet"
    left.write_bytes(b"z")
    os.utime(left, (0, 0))
    command = ("rm", "--unreferenced", "--store", str(store))
    assert arco(*command) == 0
    out = capsys.readouterr().out
    assert "to remove; add --yes to do it: 4 objects, 301 B" in out
    assert alive.name not in out and left.exists()
    assert arco(*command, "--yes") == 0
    assert not left.exists()
    assert objects(store) == whole | {str(p.relative_to(store)) for p in alive.rglob("*") if p.is_file()}
    assert arco(*command, "--older-than", "0s", "--yes") == 0
    assert objects(store) == whole
    assert arco("verify", grown) == 0 and arco("verify", version) == 0
    capsys.readouterr()
    assert arco(*command) == 0 and "nothing to remove" in capsys.readouterr().out


def test_a_dataset_with_a_manifest_of_another_format_is_left_alone(
    version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = version.parents[2]
    manifest = version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": ', '"format": 9'))
    before = objects(store)
    assert arco("rm", "--unreferenced", "--older-than", "0s", "--yes", "--store", store) == 0
    assert "left alone: " in capsys.readouterr().out
    assert arco("ls", "--store", store) == 0
    assert "left out: " in capsys.readouterr().out
    assert objects(store) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rm"], "give a version, or --unreferenced"),
        (["rm", "x", "--unreferenced"], "give a version, or --unreferenced"),
        (["rm", "x", "--older-than", "1h"], "--older-than goes with --unreferenced"),
        (["rm", "--unreferenced", "--older-than", "1"], "'1': must be a number and s, m, h or d"),
        (["verify", "nothing/here"], "has no dataset version 'nothing/here'"),
    ],
)
def test_impossible_commands(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arco(*arguments, "--store", tmp_path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.s3
def test_the_same_commands_on_s3(
    version: Path, grown: Path, aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(f"s3://arco/{tmp_path.name}")
    store.upload_folder(version.parents[2], "store")
    url = store.join("store")
    assert arco("ls", "--store", url) == 0
    out = capsys.readouterr().out
    assert version.name in out and grown.name in out
    for command in (["show", "dataset"], ["verify", "dataset"], ["verify", "dataset", "--quick"]):
        assert arco(*command, "--store", url) == 0
    assert arco("rm", f"dataset/{version.name}", "--store", url, "--yes") == 2
    store.write_bytes("store/datasets/dataset/dead/labeled/x.parquet", b"x")
    time.sleep(1.1)  # the times of S3 are whole seconds
    assert arco("rm", "--unreferenced", "--store", url, "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert arco("rm", "--unreferenced", "--older-than", "1s", "--store", url, "--yes") == 0
    assert "removed 1 objects, 1 B" in capsys.readouterr().out
    boto3.session.Session().client("s3").create_multipart_upload(
        Bucket="arco", Key=f"{tmp_path.name}/store/datasets/dataset/dead/labeled/part.parquet"
    )
    assert len(store.partial_uploads("store/datasets")) == 1
    assert arco("rm", "--unreferenced", "--store", url, "--yes") == 0  # moto says it began in 2010
    assert store.partial_uploads("store/datasets") == []
    assert arco("rm", f"dataset/{grown.name}", "--store", url, "--yes") == 0
    assert arco("rm", f"dataset/{version.name}", "--store", url, "--yes") == 0
    assert store.list() == []
