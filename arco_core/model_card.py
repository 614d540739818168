"""The model card: what a published model is, how well it does, and what it must not be used for.

Sections follow Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019 (doi:10.1145/3287560.3287596).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arco_core.config import DataConfig, InferenceConfig

_CARD = """\
# {title}

Segments {structures} in {channels}-channel scans, {how} of {parameters:,}
parameters, trained by {method} from {labeled} labelled patients (of {train} in training; {ratio}) and the
scans of the others.

## Scores

{split} patients ({patients_scored}), {cases} volumes, seed {seed}. Per volume on the scan's own grid, then
the mean over volumes; in brackets 95 % intervals, a bootstrap over the patients: how the mean would vary
with other patients like these. {convention}

{scores}

Structures in the reference of which not a voxel was found: {missing}.
{chosen}

## Data

* Dataset version: `{dataset}`
* Labelled patients: {patients}
* Ground truth, scanners and population are the dataset's: the scores say nothing about others.

## Intended use and limits

* For research on scans like those of the dataset version above (modality, protocol, population), and as a
  starting point that is validated locally before it is relied on.
* **Not a medical device.** No diagnosis or treatment decision may rest on its output without a qualified
  reader.
* Not for other modalities, other anatomy, or scans prepared in another way: whatever it is given, it draws
  {structures}.
* {consistency}
* Trained from few annotations: expect it to fail on pathology, orientations, contrasts and artefacts that
  the labelled patients do not show. It gives no warning when it does. {uncertainty}
* Fairness across sex, age, scanner or site was not examined.

## How to use it

```sh
arco predict --model THIS_FOLDER scan.nii.gz -o mask.nii.gz
```

Values of the mask: {values}.

Without this project's code, `model.pt2` needs PyTorch ({torch}) only:

```python
import torch

network = torch.export.load("model.pt2").module()
# {images}: float32 (B, {channels}, {sides}), any B
logits = network({images})  # (B, {classes}, {sides})
mask = logits.argmax(dim=1)
```
{onnx}
with {images} prepared as `model.json` says under `data`:

{preprocessing}

## Files

| file | what |
| --- | --- |
| `model.safetensors` | weights |
| `model.json` | preprocessing, classes, network, metrics, provenance, checksums |
| `model.pt2` | `torch.export` program, dynamic batch |
{files}"""

_ONNX = """
and `model.onnx` ONNX Runtime only:

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {{"images": {images}}})[0]  # float32 NumPy, as above
mask = logits.argmax(axis=1)
```
"""
_FILES = {
    "teacher": "| `teacher.safetensors` | weights of the teacher, the network's average over training |\n",
    "onnx": "| `model.onnx` | the program as an ONNX graph, dynamic batch |\n",
}
_UNCERTAINTY = {
    False: "`arco predict --maps entropy` maps how unsure it is, which is not calibrated.",
    True: "`arco predict --maps entropy disagreement` maps how unsure it is, which is not calibrated.",
}


_CONSISTENCY = {
    False: "Slices are segmented one by one: no structure is guaranteed to be connected, or consistent from\n"
    "  slice to slice.",
    True: "No structure is guaranteed to be connected. What lies outside of a patch has no influence on it.",
}
_MIRRORS = "softmax averaged over the image and its mirror images along every combination of the axes {axes}"
_CONVENTIONS = {
    "arco": "ASD is symmetric; distances are over the volumes where the structure was found.",
    "released": "Convention of the authors' released code: one-sided ASD, missed structures at distance 0.",
}


def model_card(
    *,
    classes: Sequence[str],
    channels: int,
    data_config: DataConfig,
    inference_config: InferenceConfig,
    parameters: int,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    teacher: bool = False,
    onnx: bool = False,
) -> str:
    """Markdown for `README.md` of a package.

    Args:
        classes: names, background first.
        channels: channels of the input image.
        data_config: the preprocessing.
        inference_config: how volumes are predicted patch by patch.
        parameters: number of the network's parameters.
        metrics: `split`, `cases`, `patients`, `dice`, `asd_mm`, `hd95_mm` (each `mean` and `per_class`, with
            `interval` and `per_class_interval`), `all_seeds`, `missing` and `convention`.
        provenance: `method`, `seed`, `dataset`, `labeled_patients` and `train_patients`; what is absent
            is said to be unknown.
        teacher: whether the package holds the teacher.
        onnx: whether it holds an ONNX graph.
    """
    labeled, train = provenance.get("labeled_patients"), provenance.get("train_patients")
    volumetric = len(data_config.image_size) == 3
    return _CARD.format(
        title=f"{data_config.name}: {str(provenance.get('method', 'ARCO')).upper()}",
        structures=", ".join(classes[1:]),
        channels=channels,
        parameters=parameters,
        method=str(provenance.get("method", "ARCO")).upper(),
        labeled=len(labeled) if labeled is not None else "an unknown number of",
        train=train if train is not None else "an unknown number",
        ratio=f"{len(labeled) / train:.1%}" if labeled is not None and train else "unknown ratio",
        split=str(metrics.get("split", "unknown")).capitalize(),
        cases=metrics.get("cases", "unknown"),
        patients_scored=metrics.get("patients", "unknown"),
        chosen=_chosen(metrics),
        uncertainty=_UNCERTAINTY[teacher],
        torch=provenance.get("versions", {}).get("torch", "the version of `model.json`"),
        onnx=_ONNX.format(images="patches" if volumetric else "slices") if onnx else "",
        files="".join(_FILES[name] for name, there in (("teacher", teacher), ("onnx", onnx)) if there),
        seed=provenance.get("seed", "unknown"),
        convention=_CONVENTIONS[metrics.get("convention", "arco")],
        scores=_score_table(classes[1:], metrics),
        missing=metrics.get("missing", "unknown"),
        dataset=provenance.get("dataset", "unknown"),
        patients=", ".join(f"`{p}`" for p in labeled) if labeled else "unknown",
        values=", ".join(f"{index} {name}" for index, name in enumerate(classes)),
        how="patch by patch, with a 3D V-Net" if volumetric else "slice by slice, with a 2D U-Net",
        consistency=_CONSISTENCY[volumetric],
        images="patches" if volumetric else "slices",
        sides=", ".join(map(str, data_config.image_size)),
        classes=len(classes),
        preprocessing="\n".join(
            f"{i}. {step}" for i, step in enumerate(_steps(data_config, inference_config), start=1)
        ),
    )


def _chosen(metrics: Mapping[str, Any]) -> str:
    """Why the scores flatter, and what the method reached over all seeds."""
    text = ""
    if metrics.get("split") == "validation":
        text = "\nSettings were chosen on these patients, too: expect less on others.\n"
    dice = metrics.get("all_seeds", {}).get("dice", {})
    if dice.get("sd") is None:
        return text
    return text + (
        "\nThis is the best of several seeds on these patients, so its scores are optimistic. Over all\n"
        f"seeds the mean DSC is {dice['mean'] * 100:.1f} ± {dice['sd'] * 100:.1f} % (standard deviation).\n"
    )


def _score_table(structures: Sequence[str], metrics: Mapping[str, Any]) -> str:
    rows = ["| structure | DSC [%] | ASD [mm] | HD95 [mm] |", "| --- | ---: | ---: | ---: |"]
    for name in (*structures, "mean"):
        cells = []
        for key, scale, digits in (("dice", 100, 1), ("asd_mm", 1, 2), ("hd95_mm", 1, 2)):
            score = metrics.get(key, {})
            if name == "mean":
                value, interval = score.get("mean"), score.get("interval")
            else:
                value = score.get("per_class", {}).get(name)
                interval = (score.get("per_class_interval") or {}).get(name)
            cell = "–" if value is None else f"{value * scale:.{digits}f}"
            if value is not None and interval is not None:
                low, high = (f"{bound * scale:.{digits}f}" for bound in interval)
                cell += f" ({low} to {high})"
            cells.append(cell)
        label = "**mean**" if name == "mean" else name
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _steps(config: DataConfig, inference: InferenceConfig) -> list[str]:
    """The preprocessing in words, in the order in which it happens."""
    (low, high), (floor, ceiling) = config.percentiles, config.window_hu
    margin = f", with a margin of {config.crop_margin_mm:g} mm" if config.crop_margin_mm else ""
    extent = " x ".join(f"{mm:g} mm" if mm else "all" for mm in config.crop_extent_mm)
    crop = {
        "none": "crop: none",
        "center": f"crop: {extent} (depth, height, width) around the middle",
        "nonzero": f"crop: the box of all voxels that are not 0{margin}",
        "body": f"crop: the box of the largest connected region brighter than the volume's mean{margin}",
    }[config.crop]
    intensity = {
        "minmax": f"intensities: percentiles {low:g} and {high:g} of the volume to 0 and 1, clipped",
        "zscore": "intensities: mean 0 and standard deviation 1 over the volume",
        "window": f"intensities: {floor:g} HU to 0 and {ceiling:g} HU to 1, clipped",
    }[config.intensity]
    axis = ("sagittal", "coronal", "axial")[config.slice_axis]
    mirrors = [] if not inference.flips else [_MIRRORS.format(axes=", ".join(inference.flips))]
    start = ["orientation: voxel axes turned to left, posterior, inferior (LPI)", crop, intensity]
    rows = "rows along the later and columns along the earlier of the two other axes"
    if len(config.image_size) == 3:
        return [
            *start,
            f"volume: depth across {axis} slices (axis {config.slice_axis}), {rows}",
            _spacing("spacing", config),
            "padded around the centre with the darkest value where smaller than a patch",
            f"cut into windows of {_sides(config)} voxels that overlap by {inference.overlap:.0%}; softmax "
            "averaged with Gaussian weights, standard deviation 1/8 of the side (MONAI's "
            '`sliding_window_inference(mode="gaussian")`)',
            *mirrors,
        ]
    fit = {"pad": "cropped or padded around the centre", "resize": "resized"}[config.fit]
    return [
        *start,
        f"slices: {axis} (along axis {config.slice_axis}), {rows}",
        _spacing("in-plane spacing", config),
        f"{fit} to {_sides(config)} pixels, padding with the darkest value",
        *mirrors,
    ]


def _spacing(what: str, config: DataConfig) -> str:
    if not config.spacing_mm:
        return f"{what} kept"
    size = " x ".join(f"{mm:g}" for mm in config.spacing_mm)
    return f"{what} resampled to {size} mm (linear, antialiased)"


def _sides(config: DataConfig) -> str:
    return " x ".join(map(str, config.image_size))
