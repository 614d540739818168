"""Pictures that an HTML file can hold show what the masks are."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest

from components.evaluate.report.images import contour_path, png_data_uri

Mask = npt.NDArray[np.bool_]


def decode_png(uri: str) -> npt.NDArray[np.uint8]:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind], position = body, position + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]


def test_png_holds_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9)).astype(np.uint8)
    assert np.array_equal(decode_png(png_data_uri(pixels)), pixels)


def filled(path: str, shape: tuple[int, int]) -> Mask:
    """Even-odd filling of a path of horizontal and vertical steps: what a browser paints."""
    crossings = np.zeros(shape, int)
    x = y = 0
    for command, first, second in re.findall(r"([Mhvz])(-?\d+)?(?: (-?\d+))?", path):
        if command == "M":
            x, y = int(first), int(second)
        elif command == "h":
            x += int(first)
        elif command == "v":
            low, high = sorted((y, y + int(first)))
            crossings[low:high, x:] += 1
            y += int(first)
    return np.asarray(crossings % 2 == 1)


@pytest.mark.parametrize("seed", range(20))
def test_filling_an_outline_gives_the_mask(seed: int) -> None:
    """Also with holes, several parts, parts that touch at a corner, and parts at the border."""
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 12)) < rng.choice([0.15, 0.5, 0.85])
    path = contour_path(mask)
    assert np.array_equal(filled(path, mask.shape), mask)
    assert path.count("M") == path.count("z")


def test_an_outline_has_corners_only() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:5, 3:8] = True
    assert contour_path(mask) == "M3 2h5v3h-5v-3z"
    assert contour_path(np.zeros((4, 4), bool)) == ""
