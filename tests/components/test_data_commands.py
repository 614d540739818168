"""`arco data`, as a user calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.cli import main
from infra.datasets import DatasetVersion


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
