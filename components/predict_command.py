"""`arco predict`."""

from __future__ import annotations

import argparse
from typing import Any

from arco_core.errors import DataError

MAPS = ("probabilities", "entropy", "disagreement")
"""`arco_core.inference.MAPS`, which costs an import of torch."""
_SHOWN = 10


def add_predict_command(commands: Any) -> None:
    """Add the command to `arco`'s."""
    parser = commands.add_parser("predict", help="segment scans with a published model: one or thousands")
    parser.add_argument(
        "scans", help="file, folder or URL: NIfTI, NRRD or DICOM series; or a dataset version's URL"
    )
    parser.add_argument("--model", required=True, help="folder or URL of a published model")
    parser.add_argument(
        "-o", "--output", required=True,
        help="folder or URL to write into; of a single scan also a file: .nii.gz, .nii or .dcm",
    )  # fmt: skip
    parser.add_argument("--split", help="of a dataset version: train, validation or test")
    parser.add_argument(
        "--maps", nargs="+", default=[], choices=MAPS,
        help="what to write besides masks; disagreement is that of the model and its teacher",
    )  # fmt: skip
    parser.add_argument(
        "--flips", metavar="AXES",
        help="average over mirror images along these axes, of d, h and w (depth, height, width): w, hw, …",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int,
        help="actors on Ray; 0: in this process. Default: one a GPU, or else a core, of Ray",
    )  # fmt: skip
    parser.add_argument(
        "--no-dicom", dest="dicom", action="store_false", help="no DICOM segmentation of DICOM series"
    )
    parser.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> None:
    from components.predict.step import predict  # imports torch, which takes seconds

    if options.workers is not None and options.workers < 0:
        raise DataError(f"--workers {options.workers}: must be 0 or more.")
    given = ("model", "scans", "output", "split", "maps", "flips", "workers", "dicom")
    result = predict(**{key: getattr(options, key) for key in given})
    if len(result.done) == 1 and not result.failed:
        volumes = next(iter(result.done.values())).volumes_ml
        print(f"{result.output}  " + ", ".join(f"{name} {ml:.2f} ml" for name, ml in volumes.items()))
        return
    again = f", {result.skipped} of them before" if result.skipped else ""
    print(f"{result.output}  {len(result.done)} scans segmented{again}; predictions.csv has the volumes")
    if result.failed:
        lines = [f"  {case}: {message}" for case, message in sorted(result.failed.items())[:_SHOWN]]
        more = len(result.failed) - _SHOWN
        lines += [f"  … and {more} more in predictions.csv"] if more > 0 else []
        raise DataError(
            "\n".join(
                [f"{len(result.failed)} of {len(result.failed) + len(result.done)} scans failed:", *lines]
            )
            + "\nMend them, or leave them out, and run the same command again: what is done is kept."
        )
