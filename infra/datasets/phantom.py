"""A synthetic heart in short-axis view, for demonstrations and tests.

Nothing here is real: it borrows the look of cardiac cine MRI (a bright left ventricle inside a
dark ring of muscle, a bright crescent of right ventricle beside it, dark lungs, fat, liver, noise
and coil shading) so that the task is neither trivial nor hopeless. Lengths are in millimetres;
`x` runs along columns (patient's right to left), `y` along rows (front to back).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

CLASSES = ("background", "rv", "myo", "lv")
RV, MYO, LV = 1, 2, 3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Shape of one heart. Radii are those at the base; `tilt` is the angle from LV to RV."""

    lv_radius: float
    wall: float
    rv_reach: float
    """How far the right ventricle's free wall lies from the septum."""
    rv_width: float
    tilt: float
    stretch: float
    """Ratio of the left ventricle's axes."""
    ripples: Array
    """Amplitude (relative) and phase of the contour's harmonics 2, 3 and 4: (3, 2)."""
    apex: float
    """Position along the stack, 0 base to 1 last slice, where the myocardium ends."""
    rv_end: float
    """Position along the stack where the right ventricle ends."""
    center: tuple[float, float]
    drift: tuple[float, float]
    """Shift of the centre from base to apex: the long axis is not quite along the stack."""


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Intensities of one scan, before shading and noise."""

    blood: float
    rv_blood: float
    rim: float
    """What surrounds the heart: fat, or no more than the body around it."""
    muscle: float
    lung: float
    fat: float
    liver: float
    body: float
    gamma: float
    shading: Array
    """Coefficients of the logarithm of the bias field: x, y, x², xy, y²."""
    noise: float
    blur_mm: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One synthetic scan: image int16 and label uint8, both (X, Y, Z), voxel size in mm."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


def make_phantom(rng: np.random.Generator) -> Phantom:
    """Draw a patient and scan it; all randomness comes from `rng`."""
    anatomy, appearance = _draw_anatomy(rng), _draw_appearance(rng)
    in_plane = rng.uniform(1.45, 1.75)
    spacing = (in_plane, in_plane, rng.uniform(7.0, 10.0))
    size, slices = int(rng.choice([60, 64, 68])), int(rng.integers(8, 11))
    axis = (np.arange(size) - (size - 1) / 2) * in_plane
    x, y = np.meshgrid(axis, axis)
    surroundings = _draw_surroundings(rng, anatomy)
    images, labels = [], []
    for depth in np.linspace(0.0, 1.0, slices):
        breath = rng.normal(0.0, 0.9, 2)
        tissue, label = _draw_slice(x, y, depth, breath, anatomy, appearance, surroundings, rng)
        images.append(_acquire(tissue, x, y, in_plane, appearance, rng))
        labels.append(label)
    volume = np.stack(images) * appearance.scale
    return Phantom(
        image=np.clip(volume, 0, 32000).astype(np.int16).transpose(2, 1, 0),
        label=np.stack(labels).transpose(2, 1, 0),
        spacing_mm=spacing,
    )


def _draw_anatomy(rng: np.random.Generator) -> Anatomy:
    lv_radius = rng.uniform(14.0, 21.0)
    return Anatomy(
        lv_radius=lv_radius,
        wall=rng.uniform(5.0, 10.0),
        rv_reach=rng.uniform(13.0, 22.0),
        rv_width=rng.uniform(0.75, 1.15),
        tilt=np.pi + rng.uniform(-0.6, 0.6),
        stretch=rng.uniform(0.82, 1.2),
        ripples=np.stack([rng.normal(0.0, [0.05, 0.035, 0.02]), rng.uniform(0, 2 * np.pi, 3)], axis=1),
        apex=rng.uniform(0.88, 1.08),
        rv_end=rng.uniform(0.6, 0.85),
        center=(rng.normal(4.0, 4.0), rng.normal(0.0, 4.0)),
        drift=(rng.normal(3.0, 3.0), rng.normal(2.0, 3.0)),
    )


def _draw_appearance(rng: np.random.Generator) -> Appearance:
    blood, fat, body = rng.uniform(0.65, 0.95), rng.uniform(0.55, 0.9), rng.uniform(0.3, 0.45)
    return Appearance(
        blood=blood,
        rv_blood=blood * rng.uniform(0.85, 1.05),
        rim=fat if rng.random() < 0.4 else body,
        muscle=rng.uniform(0.12, 0.28),
        lung=rng.uniform(0.02, 0.14),
        fat=fat,
        liver=rng.uniform(0.3, 0.6),
        body=body,
        gamma=rng.uniform(0.85, 1.2),
        shading=rng.normal(0.0, [0.1, 0.14, 0.07, 0.07, 0.07]),
        noise=rng.uniform(0.025, 0.05),
        blur_mm=rng.uniform(0.7, 1.5),
        scale=rng.uniform(150.0, 1500.0),
    )


@dataclass(frozen=True, kw_only=True)
class _Blob:
    """An ellipse of tissue around the heart, through all slices."""

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    tissue: str


def _draw_surroundings(rng: np.random.Generator, anatomy: Anatomy) -> list[_Blob]:
    def blob(x: float, y: float, rx: float, ry: float, tissue: str, jitter: float = 4.0) -> _Blob:
        moved = (x + rng.normal(0, jitter), y + rng.normal(0, jitter))
        grown = (rx * rng.uniform(0.8, 1.25), ry * rng.uniform(0.8, 1.25))
        return _Blob(center=moved, radii=grown, angle=rng.uniform(-0.4, 0.4), tissue=tissue)

    heart_x, heart_y = anatomy.center
    reach = anatomy.lv_radius + anatomy.wall
    blobs = [
        blob(heart_x + reach + 22, heart_y - 8, 24, 48, "lung"),  # left lung
        blob(-52, -12, 20, 34, "lung"),  # right lung
        blob(-30, 48, 38, 20, "liver"),
        blob(0, -56, 70, 13, "fat", 3.0),  # chest wall
        blob(heart_x + 22, heart_y + reach + 15, 8, 8, "blood", 3.0),  # descending aorta
        blob(heart_x - 4, heart_y + reach + 8, 13, 6, "blood"),  # a vein or the stomach's content
    ]
    for _ in range(int(rng.integers(1, 5))):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(reach + 10, reach + 30)
        x, y = heart_x + distance * np.cos(angle), heart_y + distance * np.sin(angle)
        tissue = str(rng.choice(["blood", "fat", "muscle", "liver"]))
        blobs.append(blob(x, y, rng.uniform(3, 9), rng.uniform(3, 7), tissue, 0.0))
    return blobs


def _draw_slice(
    x: Array,
    y: Array,
    depth: float,
    breath: Array,
    anatomy: Anatomy,
    appearance: Appearance,
    surroundings: list[_Blob],
    rng: np.random.Generator,
) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Tissue intensities and label (rows, columns) of the slice at `depth`, 0 base to 1 last."""
    look = appearance
    tissue = np.full(x.shape, look.body)
    for blob in surroundings:
        level = getattr(look, blob.tissue) * (1 + 0.08 * rng.normal())
        _paint(tissue, _ellipse(x - breath[0], y - breath[1], blob.center, blob.radii, blob.angle), level)

    center = [c + d * depth + b for c, d, b in zip(anatomy.center, anatomy.drift, breath, strict=True)]
    u, v = x - center[0], y - center[1]
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    left = max(0.0, 1 - (depth / anatomy.apex) ** 2.2) ** 0.5  # 1 at the base, 0 at the apex
    cavity = anatomy.lv_radius * left - 2.0 * (1 - left)
    outline = _outline(angle - anatomy.tilt, anatomy)
    thickness = anatomy.wall * (0.35 + 0.65 * left)
    septum_thin = 1 + 0.15 * np.cos(angle - anatomy.tilt)
    endo = radius - cavity * outline
    epi = radius - (cavity + thickness / septum_thin) * outline
    right = max(0.0, 1 - (depth / anatomy.rv_end) ** 2) ** 0.5
    crescent = _crescent(u, v, epi, right, anatomy)
    label = np.zeros(x.shape, np.uint8)
    if thickness + cavity < 2.0:  # beyond the apex
        return tissue, label
    _paint(tissue, np.minimum(epi, crescent) - 2.0, look.rim)
    _paint(tissue, crescent, look.rv_blood * (1 + 0.05 * rng.normal()))
    _trabeculate(tissue, crescent, look, rng)
    _paint(tissue, epi, look.muscle * (1 + 0.05 * rng.normal()))
    label[crescent < 0] = RV
    label[epi < 0] = MYO
    if cavity > 1.5:
        _paint(tissue, endo, look.blood * (1 + 0.05 * rng.normal()))
        if 0.15 < depth < 0.8:
            _papillary(tissue, u, v, cavity, anatomy, look)
        label[endo < 0] = LV
    return tissue, label


def _outline(angle: Array, anatomy: Anatomy) -> Array:
    """Relative radius of the left ventricle at `angle`, around 1."""
    stretch = anatomy.stretch
    ellipse = 1 / np.sqrt((np.cos(angle) * stretch) ** 2 + (np.sin(angle) / stretch) ** 2)
    waves = (a * np.cos((k + 2) * angle + phase) for k, (a, phase) in enumerate(anatomy.ripples))
    return np.asarray(ellipse * (1 + sum(waves)))


def _crescent(u: Array, v: Array, epi: Array, right: float, anatomy: Anatomy) -> Array:
    """Distance-like function of the right ventricle, negative inside: an ellipse less the left heart."""
    if right < 0.25:
        return np.full(u.shape, np.inf)
    outer = anatomy.lv_radius + anatomy.wall
    offset = 0.55 * outer
    center = (offset * np.cos(anatomy.tilt), offset * np.sin(anatomy.tilt))
    reach = outer - offset + anatomy.rv_reach * right
    width = outer * anatomy.rv_width * (0.6 + 0.4 * right)
    free_wall = _ellipse(u, v, center, (reach, width), anatomy.tilt)
    return np.maximum(free_wall, 1.2 - epi)


def _ellipse(
    x: Array, y: Array, center: tuple[float, float], radii: tuple[float, float], angle: float
) -> Array:
    """Approximate distance in mm to an ellipse, negative inside."""
    u, v = x - center[0], y - center[1]
    along = (u * np.cos(angle) + v * np.sin(angle)) / radii[0]
    across = (v * np.cos(angle) - u * np.sin(angle)) / radii[1]
    return np.asarray((np.hypot(along, across) - 1) * min(radii))


def _paint(tissue: Array, distance: Array, level: float) -> None:
    """Blend `level` in where `distance` (mm) is negative, with an edge one millimetre wide."""
    cover = np.clip(0.5 - distance, 0.0, 1.0)
    tissue += cover * (level - tissue)


def _trabeculate(tissue: Array, crescent: Array, look: Appearance, rng: np.random.Generator) -> None:
    """Strands of muscle in the right ventricle, mostly along its wall."""
    texture = ndimage.gaussian_filter(rng.normal(size=tissue.shape), 1.2)
    strands = (texture > 0.9 * texture.std()) & (crescent < 0)
    tissue[strands] += 0.6 * (look.muscle - tissue[strands])


def _papillary(tissue: Array, u: Array, v: Array, cavity: float, anatomy: Anatomy, look: Appearance) -> None:
    """Two dark muscles in the left cavity, counted as cavity in the label, as in clinical practice."""
    for turn in (0.6 * np.pi, 1.35 * np.pi):
        angle = anatomy.tilt + turn
        center = (0.6 * cavity * np.cos(angle), 0.6 * cavity * np.sin(angle))
        _paint(tissue, _ellipse(u, v, center, (0.2 * cavity, 0.14 * cavity), angle), look.muscle)


def _acquire(
    tissue: Array, x: Array, y: Array, in_plane: float, look: Appearance, rng: np.random.Generator
) -> Array:
    """Partial volume, contrast, coil shading and Rician noise."""
    signal = ndimage.gaussian_filter(np.clip(tissue, 0, None), look.blur_mm / in_plane) ** look.gamma
    p, q = x / 50.0, y / 50.0
    field = sum(c * term for c, term in zip(look.shading, (p, q, p * p, p * q, q * q), strict=True))
    signal = signal * np.exp(field)
    real, imaginary = rng.normal(0.0, look.noise, (2, *signal.shape))
    return np.asarray(np.hypot(signal + real, imaginary))
