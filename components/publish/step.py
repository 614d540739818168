"""The publishing step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arco_core.errors import DataError, StoreError
from arco_core.model_package import DESCRIPTION, PublishedModel, save_package
from arco_core.networks import PyramidNetwork
from components.evaluate.summary import METRICS, best_seed
from components.model_ref import BASELINE, ModelRef
from components.versions import software_versions
from infra.datasets import DatasetVersion
from infra.storage import Store
from infra.training.load import load_networks
from infra.training.stage_job import StageJob

FOLDER = "model"
_PACKAGES = ("torch", "monai", "numpy", "nibabel")


def publish(*, dataset: str, run: str, models: Sequence[ModelRef], summary: str) -> str:
    """Publish the ARCO model that did best in the evaluation, and return the URL of its folder.

    The package goes to `<run>/model/`, `model.json` last. A package that an earlier attempt published there
    is replaced; the baseline is published only where it is all there is.

    Args:
        dataset: URL of the dataset version that the models were trained on.
        run: URL of the run folder.
        models: the models that were evaluated.
        summary: URL of the evaluation's `summary.json`.

    Raises:
        DataError: `models` and `summary` do not belong together.
        StoreError: the dataset, a checkpoint or the run folder cannot be read or written.
    """
    store = Store(run)
    store.check_writable()
    results = read_summary(summary)
    ref = choose_model(models, results, summary)
    version = DatasetVersion.open(dataset)
    networks = load_networks(ref.checkpoint)
    provenance = {**provenance_of(ref, networks[2], version), "steps": results["steps"]}
    return write_package(store, networks, version, metrics=_metrics(results, ref), provenance=provenance)


def write_package(
    store: Store,
    networks: tuple[PyramidNetwork, PyramidNetwork | None, StageJob],
    version: DatasetVersion,
    *,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """Write what `load_networks` loaded as the package of the run folder `store`; returns its URL."""
    network, teacher, job = networks
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER
        save_package(
            folder,
            PublishedModel(
                network=network,
                teacher=teacher,
                data_config=version.data_config,
                network_config=job.settings.network,
                inference_config=job.settings.inference,
                classes=job.classes,
                channels=job.channels,
            ),
            metrics=metrics,
            provenance=provenance,
            onnx=True,
        )
        for file in sorted(folder.iterdir(), key=lambda f: f.name == DESCRIPTION):
            store.upload_file(file, f"{FOLDER}/{file.name}")
    return store.join(FOLDER)


def read_summary(url: str) -> dict[str, Any]:
    """The evaluation's summary at `url`. Raises `StoreError` when it cannot be read."""
    folder, _, name = url.rpartition("/")
    content = Store(folder).read_bytes(name)
    try:
        return dict(json.loads(content))
    except ValueError as error:
        raise StoreError(f"{url} is not JSON ({error}): evaluate the run again.") from error


def choose_model(models: Sequence[ModelRef], results: Mapping[str, Any], summary: str) -> ModelRef:
    """The best seed of the first method that is not the baseline."""
    method = next((m for m in results["methods"] if m != BASELINE), BASELINE)
    seed = best_seed(results, method)
    for ref in models:
        if (ref.method, ref.seed) == (method, seed):
            return ref
    raise DataError(
        f"{summary} names {method} with seed {seed} as the best model, which is not among the models to "
        f"publish ({', '.join(f'{m.method} {m.seed}' for m in models)}): pass those that were evaluated."
    )


def _metrics(results: Mapping[str, Any], ref: ModelRef) -> dict[str, Any]:
    """The published seed's own scores, and what the method reached over all seeds."""
    method = results["methods"][ref.method]
    seed = str(ref.seed)
    own = {
        metric: {
            "mean": method[metric]["per_seed"][seed],
            "per_class": method[metric]["per_seed_and_class"][seed],
            "interval": method[metric]["per_seed_interval"][seed],
            "per_class_interval": method[metric]["per_seed_and_class_interval"][seed],
        }
        for metric in METRICS
    }
    return {
        "split": results["split"],
        "cases": results["cases"],
        "convention": results["convention"],
        **own,
        "missing": method["missing_per_seed"][seed],
        "patients": len(results["patients"]),
        "all_seeds": {metric: {key: method[metric][key] for key in ("mean", "sd")} for metric in METRICS},
    }


def provenance_of(ref: ModelRef, job: StageJob, version: DatasetVersion) -> dict[str, Any]:
    """Where a model comes from."""
    return {
        "method": ref.method,
        "seed": ref.seed,
        "checkpoint": ref.checkpoint,
        "dataset": version.url,
        "dataset_version": version.version,
        "labeled_patients": sorted(job.labeled_patients),
        "train_patients": len(version.patients("train")),
        "config": job.config,
        "training_code": job.code,
        "versions": software_versions(_PACKAGES),
    }
