"""A preparation that is stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from arco_core.errors import StoreError
from infra.datasets import DatasetVersion, packing, prepare_dataset
from infra.datasets.convert import PreparedCase, convert_case
from infra.datasets.records import FOLDER
from infra.storage import Store

from .conftest import TINY

STOP_AFTER = 4


class Stopped(BaseException):
    """The preparation ends here."""


class Conversions:
    """`convert_case`, which counts its calls, and fails when there have been `limit`."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.cases = limit, 0

    def __call__(self, *arguments: object, **options: object) -> PreparedCase:
        if self.cases == self.limit:
            raise Stopped
        self.cases += 1
        return convert_case(*arguments, **options)  # type: ignore[arg-type]


@pytest.fixture
def stopped(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which a preparation of `raw` was stopped after four of six scans."""
    store = Store(str(tmp_path / "store"))
    monkeypatch.setattr(packing, "convert_case", Conversions(STOP_AFTER))
    with pytest.raises(Stopped):
        prepare_dataset(str(raw), store, TINY, use_ray=False)
    return store


def go_on(raw: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[DatasetVersion, int, list[str]]:
    """Prepare again: the version, the number of scans that were converted, and what was told."""
    conversions, notes = Conversions(None), []
    monkeypatch.setattr(packing, "convert_case", conversions)
    version = prepare_dataset(str(raw), store, TINY, use_ray=False, on_note=notes.append)
    return version, conversions.cases, notes


def records(store: Store) -> list[str]:
    return [path for path in store.list() if f"/{FOLDER}/" in path]


def test_what_was_done_is_not_done_again(
    raw: Path, stopped: Store, tiny: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(records(stopped)) == STOP_AFTER  # of so small a dataset, each scan is a task
    version, converted, notes = go_on(raw, stopped, monkeypatch)
    assert converted == 6 - STOP_AFTER
    assert f"goes on where it was stopped: {STOP_AFTER} of 6 scans are prepared already" in notes
    assert version.manifest.shards == tiny.manifest.shards and version.version == tiny.version
    assert records(stopped) == []
    assert len(stopped.list()) == len(version.manifest.shards) + 2  # … the cases and the manifest


def test_a_shard_that_is_gone_is_written_again(
    raw: Path, stopped: Store, tiny: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped.delete(next(path for path in stopped.list() if path.endswith(".parquet")))
    version, converted, _ = go_on(raw, stopped, monkeypatch)
    assert converted == 6 - STOP_AFTER + 1
    assert version.manifest.shards == tiny.manifest.shards


def test_a_scan_that_is_another_one_now_is_prepared_anew(
    raw: Path, stopped: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, other = raw / "imagesTr" / "case_000.nii.gz", raw / "imagesTr" / "case_001.nii.gz"
    case.write_bytes(other.read_bytes())
    other.unlink()
    (raw / "labelsTr" / "case_001.nii.gz").unlink()
    _, converted, _ = go_on(raw, stopped, monkeypatch)
    assert converted == 5  # other content is another version, of which nothing is done


def test_a_damaged_record_is_named(raw: Path, stopped: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = records(stopped)[0]
    stopped.write_bytes(record, b"{")
    with pytest.raises(StoreError, match=rf"{record} is no record .*: remove it and run again"):
        go_on(raw, stopped, monkeypatch)
    stopped.delete(record)
    assert go_on(raw, stopped, monkeypatch)[1] == 6 - STOP_AFTER + 1
