"""The CRD schemas of KubeRay and their strict validator, where they lie beside the checkout."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[3]


def shared_folder() -> Path:
    """The folder with `tools/crd_validate.py` and `schemas/`: `$ARCO_SHARED`, or beside the checkout."""
    return Path(os.environ.get("ARCO_SHARED", REPOSITORY.parent / "shared"))


@cache
def crd_schemas() -> Any | None:
    """The validator with the schemas of the kinds that are used, or None where they are absent."""
    tool = shared_folder() / "tools/crd_validate.py"
    files = sorted(shared_folder().glob("schemas/*/ray.io_ray*jobs.yaml"))
    if not tool.is_file() or not files:
        return None
    schemas = crd_validator().Schemas()
    for file in files:
        schemas.add(yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return schemas


@cache
def crd_validator() -> Any:
    spec = importlib.util.spec_from_file_location("crd_validate", shared_folder() / "tools/crd_validate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
