"""Shards hold whole cases, in row groups that are read alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from arco_core.errors import StoreError
from arco_core.samples import decode_images, encode_case
from infra.datasets.shards import ShardWriter, open_shard
from infra.storage import Store


def case(name: str, rows: int) -> pa.Table:
    slices = np.random.default_rng(rows).random((rows, 1, 16, 16)).astype(np.float32)
    return encode_case(
        case_id=name,
        patient_id=name,
        images=slices,
        label=None,
        image_size=(16, 16),
        spacing_mm=(1, 1),
        source_sha256="0" * 64,
    )


def test_row_groups_never_cross_cases(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    cases = [case("a", 3), case("b", 120), case("c", 50)]
    with ShardWriter(store, "v", "unlabeled") as writer:
        placements = [writer.add(table) for table in cases]
    assert [p.row_groups for p in placements] == [(0,), (1, 2, 3), (4,)]
    (shard,) = writer.shards
    assert shard.rows == 173 and shard.bytes == (tmp_path / shard.path).stat().st_size
    with open_shard(store, shard.path) as parquet:
        for table, placement in zip(cases, placements, strict=True):
            read = parquet.read_row_groups(list(placement.row_groups))
            assert set(read["case_id"].to_pylist()) == {table["case_id"][0].as_py()}
            order = np.argsort(read["index"].to_numpy())
            np.testing.assert_array_equal(decode_images(read)[order], decode_images(table))


def test_neighbouring_slices_lie_in_different_row_groups(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with ShardWriter(store, "v", "unlabeled") as writer:
        placement = writer.add(case("a", 120))
    with open_shard(store, writer.shards[0].path) as parquet:
        held = [parquet.read_row_group(g)["index"].to_pylist() for g in placement.row_groups]
    assert sorted(index for group in held for index in group) == list(range(120))
    assert [len(group) for group in held] == [40, 40, 40]
    assert all(b - a == 3 for group in held for a, b in pairwise(group))


def test_shards_are_closed_when_full_and_named_by_content(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with ShardWriter(store, "v", "unlabeled", shard_bytes=40_000) as writer:
        shards = [writer.add(case(str(n), 50)).shard for n in range(5)]
    assert shards == [0, 0, 1, 1, 2]
    assert [s.rows for s in writer.shards] == [100, 100, 50]
    assert store.list("v") == sorted(shard.path for shard in writer.shards)
    for shard in writer.shards:
        assert shard.sha256[:12] in shard.path


def test_error_uploads_nothing_half_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(RuntimeError), ShardWriter(store, "v", "labeled") as writer:
        writer.add(case("a", 3))
        raise RuntimeError
    assert store.list() == []
    with ShardWriter(store, "v", "labeled") as writer:
        pass
    assert writer.shards == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, the disk that is always full")
def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    words = "cannot write a shard in the making to .*No space left on device; make space there, or set TMPDIR"
    with (
        pytest.raises(StoreError, match=words),
        ShardWriter(Store(str(tmp_path)), "v", "unlabeled") as writer,
    ):
        writer._path = Path("/dev/full")
        writer.add(case("a", 120))
    assert writer.shards == [] and not Path(writer._workspace.name).exists()
