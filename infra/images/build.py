"""`make images`: build the image of steps and Ray clusters, and write what is in it (SBOM) beside it.

Needs Docker with BuildKit, and no other package than Python's own: `python3 -m infra.images.build --help`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from arco_core import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "infra" / "images" / "Dockerfile"
TORCH_INDEXES = {"cpu": "https://download.pytorch.org/whl/cpu", "cuda": ""}
"""Where the PyTorch for an accelerator is; PyPI's own is the one for CUDA, with CUDA's libraries."""


class BuildError(Exception):
    """Docker is missing, or what it was to do failed."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One image to build."""

    accelerator: str
    tag: str
    base: str | None
    """Reference of the base image over the Dockerfile's, best by digest."""
    torch_index: str
    """URL of the package index with the PyTorch to take; empty for pip's own."""
    options: tuple[str, ...]
    """Further options of `docker build`."""
    epoch: int
    """Seconds since 1970: the image's and the SBOM's time."""
    revision: str


def build(wanted: Build, folder: Path) -> Path:
    """Build the image and return the path of its SBOM, in `folder`. Raises `BuildError`."""
    _docker("build", *build_arguments(wanted), ".", environment={"DOCKER_BUILDKIT": "1"})
    bill = _docker(
        *("run", "--rm", "--network", "none", "--env", f"SOURCE_DATE_EPOCH={wanted.epoch}"),
        *(wanted.tag, "python", "-m", "infra.images.sbom"),
        capture=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"arco-{__version__}-{wanted.accelerator}.cdx.json"
    path.write_text(bill)
    return path


def build_arguments(wanted: Build) -> list[str]:
    """Options of `docker build`, but for the context."""
    created = datetime.fromtimestamp(wanted.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "TORCH_INDEX": wanted.torch_index,
        "VERSION": __version__,
        "REVISION": wanted.revision,
        "CREATED": created,
        "SOURCE_DATE_EPOCH": str(wanted.epoch),  # newer BuildKits take the image's own time from it
    }
    if wanted.base is not None:
        values["BASE"] = wanted.base
    arguments = [text for name, value in values.items() for text in ("--build-arg", f"{name}={value}")]
    return ["--file", str(DOCKERFILE), "--tag", wanted.tag, *arguments, *wanted.options]


def default_tag(accelerator: str) -> str:
    """The name that the manifests and compiled pipelines use for CPUs, and one beside it for CUDA.

    `python` is in it because Kubeflow's local runner refuses images whose name lacks the word.
    """
    return f"arco:{__version__}-python" + ("" if accelerator == "cpu" else f"-{accelerator}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="infra.images.build", description=__doc__)
    parser.add_argument("--accelerator", choices=sorted(TORCH_INDEXES), default="cpu")
    parser.add_argument("--tag", help="name of the image (default: $ARCO_IMAGE, or arco:<version>-python)")
    parser.add_argument("--base", help="base image, best by digest (default: see infra/images/Dockerfile)")
    parser.add_argument("--torch-index", help="package index with PyTorch; '' for pip's own configuration")
    parser.add_argument("--sbom", type=Path, default=ROOT / "dist", help="folder of the SBOM (default: dist)")
    parser.add_argument("options", nargs="*", help="after --: further options of docker build")
    given = parser.parse_args(arguments)
    index = TORCH_INDEXES[given.accelerator] if given.torch_index is None else given.torch_index
    try:
        wanted = Build(
            accelerator=given.accelerator,
            tag=given.tag or os.environ.get("ARCO_IMAGE") or default_tag(given.accelerator),
            base=given.base,
            torch_index=index,
            options=tuple(given.options),
            epoch=int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct")),
            revision=_revision(),
        )
        path = build(wanted, given.sbom)
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", wanted.tag, capture=True))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{wanted.tag}: {size / 1e9:.2f} GB, revision {wanted.revision}; what is in it: {path}")
    return 0


def _revision() -> str:
    """The commit, and whether the files are those of the commit."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD") + ("-modified" if changed else "")


def _git(*arguments: str) -> str:
    try:
        return _run(["git", "-C", str(ROOT), *arguments], capture=True).strip()
    except BuildError as error:
        raise BuildError(f"{error}; images are built from a git checkout, for their revision") from error


def _docker(*arguments: str, capture: bool = False, environment: dict[str, str] | None = None) -> str:
    try:
        return _run(["docker", *arguments], capture=capture, environment=environment)
    except FileNotFoundError as error:
        raise BuildError("docker is not installed, or not on the PATH") from error


def _run(command: Sequence[str], *, capture: bool = False, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:2])} ended with exit code {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
