"""Slices and masks as what an HTML file can hold: PNG data URIs and SVG paths."""

from __future__ import annotations

import base64
import struct
import zlib
from collections import defaultdict

import numpy as np
import numpy.typing as npt

Point = tuple[int, int]


def png_data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A grey image (H, W) as a `data:` URI."""
    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # filter type 0 before each row
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def contour_path(mask: npt.NDArray[np.bool_]) -> str:
    """The outline of a mask (H, W) along pixel edges, as the `d` of an SVG path in pixel units.

    It is closed, so it can be filled (`fill-rule: evenodd` keeps holes open); empty for an empty mask.
    """
    edges = _directed_edges(mask)
    paths = []
    while edges:
        start = next(iter(edges))
        loop = [start]
        while (end := _take(edges, loop[-1])) != start:
            loop.append(end)
        paths.append(_loop_path(loop))
    return "".join(paths)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _directed_edges(mask: npt.NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Pixel edges between inside and outside, clockwise around the inside: start -> ends (x, y)."""
    padded = np.pad(np.asarray(mask, bool), 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    edges: dict[Point, list[Point]] = defaultdict(list)
    for neighbour, (x0, y0), (x1, y1) in sides:
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            edges[x + x0, y + y0].append((x + x1, y + y1))
    return edges


def _take(edges: dict[Point, list[Point]], start: Point) -> Point:
    """Remove and return an end of the edges from `start`."""
    end = edges[start].pop()
    if not edges[start]:
        del edges[start]
    return end


def _loop_path(loop: list[Point]) -> str:
    """A closed path through corners only; runs of edges in one direction become one step."""
    parts = [f"M{loop[0][0]} {loop[0][1]}"]
    run = (0, 0)
    for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True):
        step = (x1 - x0, y1 - y0)
        if run != (0, 0) and (step[0] == 0) != (run[0] == 0):
            parts.append(_step(run))
            run = (0, 0)
        run = (run[0] + step[0], run[1] + step[1])
    return "".join([*parts, _step(run), "z"])


def _step(run: Point) -> str:
    return f"h{run[0]}" if run[1] == 0 else f"v{run[1]}"
