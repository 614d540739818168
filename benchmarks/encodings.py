"""How images are best stored: size and decoding time of number formats, byte orders and codecs.

    python benchmarks/encodings.py --data FOLDER [--fit pad|resize] [--side 256] [--slices 200]

FOLDER holds raw scans in any format that `arco` reads. Sizes are relative to one gzip-compressed HDF5 file a
slice (image as float32), times are the processor's, of one thread reading row groups of 50 into float32.
`int16`: steps of 1/2047 of the scan's range. `planes`: all high bytes of a slice, then all low ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.config import load
from benchmarks.loader_data import float32_slices
from infra.datasets.readers.detect import read_raw
from infra.storage import Store

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.uint8]
STEPS = 2047
CODECS = (("zstd", 1), ("zstd", 3), ("zstd", 9), ("lz4", None), ("lz4", 4), ("lz4", 9))


def read_slices(folder: str, fit: str, side: int, count: int) -> Floats:
    """The first `count` slices (N, side, side), each scan scaled to [0, 1]."""
    config = dataclasses.replace(
        load(preset="generic").data, image_size=(side, side), fit=fit, percentiles=(0.0, 100.0)
    )
    slices: list[Floats] = []
    for case in read_raw(Store(folder)).cases:
        slices += list(float32_slices(Store(folder), case, config)[:, 0])
        if len(slices) >= count:
            break
    return np.stack(slices[:count])


def planes(values: npt.NDArray[np.generic]) -> Stored:
    """High bytes of each slice, then low ones."""
    pairs = values.reshape(len(values), -1).view(np.uint8).reshape(len(values), -1, 2)
    return np.ascontiguousarray(pairs[:, :, ::-1].transpose(0, 2, 1)).reshape(len(values), -1)


def together(stored: Stored, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of `planes`."""
    high, low = torch.from_numpy(stored).view(len(stored), 2, -1).unbind(1)
    return torch.stack([low, high], dim=2).view(len(stored), -1).view(dtype)


def formats(images: Floats) -> dict[str, tuple[Stored, Callable[[Stored], torch.Tensor]]]:
    """Each format's bytes a slice, and the way from there to float32."""
    half = images.astype(np.float16)
    whole = np.round(images * STEPS).astype(np.int16)

    def plain(values: npt.NDArray[np.generic]) -> Stored:
        return values.reshape(len(values), -1).view(np.uint8)

    return {
        "float16": (plain(half), lambda b: torch.from_numpy(b).view(torch.float16).float()),
        "float16 planes": (planes(half), lambda b: together(b, torch.float16).float()),
        "int16": (plain(whole), lambda b: torch.from_numpy(b).view(torch.int16).float() / STEPS),
        "int16 planes": (planes(whole), lambda b: together(b, torch.int16).float() / STEPS),
    }


def hdf5_bytes(images: Floats) -> float:
    """Mean size of a slice as a file of its own, without its label."""
    sizes = []
    for image in images[::8]:
        file = io.BytesIO()
        with h5py.File(file, "w") as h5:
            h5.create_dataset("image", data=image, compression="gzip")
        sizes.append(len(file.getvalue()))
    return float(np.mean(sizes))


def encode(stored: Stored, codec: str, level: int | None) -> tuple[bytes, float]:
    """A Parquet file of the slices, and the seconds a slice that writing took."""
    table = pa.table({"image": pa.array(list(map(bytes, stored)), pa.binary())})
    sink, start = io.BytesIO(), time.process_time()
    pq.write_table(
        table, sink, compression=codec, compression_level=level,
        use_dictionary=False, write_statistics=False, row_group_size=50,
    )  # fmt: skip
    return sink.getvalue(), (time.process_time() - start) / len(stored)


def decode_seconds(data: bytes, width: int, to_float: Callable[[Stored], torch.Tensor]) -> float:
    """Seconds a slice, the best of five passes."""
    best = float("inf")
    for _ in range(5):
        file = pq.ParquetFile(pa.BufferReader(data))
        start = time.process_time()
        for group in range(file.num_row_groups):
            (chunk,) = file.read_row_group(group, use_threads=False)["image"].chunks
            to_float(np.frombuffer(chunk.buffers()[2], np.uint8).reshape(len(chunk), width).copy())
        best = min(best, (time.process_time() - start) / file.metadata.num_rows)
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--fit", default="resize", choices=("pad", "resize"))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--slices", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = read_slices(args.data, args.fit, args.side, args.slices)
    reference = hdf5_bytes(images)
    print(
        f"{len(images)} slices of {args.side}², {args.fit}; HDF5 with gzip: {reference / 1e3:.1f} kB a slice"
    )
    print(f"{'format':16}{'codec':10}{'size':>7}{'write µs':>10}{'read µs':>9}")
    for name, (stored, to_float) in formats(images).items():
        for codec, level in CODECS:
            data, write = encode(stored, codec, level)
            read = decode_seconds(data, stored.shape[1], to_float)
            size = len(data) / len(images) / reference
            print(f"{name:16}{codec:5}{level or '':<5}{size:7.2f}{write * 1e6:10.0f}{read * 1e6:9.0f}")


if __name__ == "__main__":
    main()
