"""The preparation step: raw scans to a dataset version."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from components.launch import StepCommand, repeated, run_step
from components.settings import load_settings
from infra.datasets import prepare_dataset
from infra.progress import Progress
from infra.ray_session import ray_session
from infra.storage import Store


def prepare(
    *,
    data: str,
    store: str,
    preset: str | None = None,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    append_to: str | None = None,
    use_ray: bool = True,
) -> str:
    """Prepare the scans below `data` as a dataset version in `store`, and return its URL.

    Args:
        data: URL of the raw scans, in one of the layouts of docs/data.md.
        store: URL of the object store.
        preset: configuration to start from; its `[data]` says how scans become slices.
        config_file: TOML file with settings, see `components.settings.load_settings`.
        overrides: settings over preset and file, each `section.key=value`.
        append_to: a version in `store` whose scans the new one is to hold, too.
        use_ray: convert scans as Ray Data tasks, or one after another in this process.

    Raises:
        ConfigError: an impossible setting.
        DataError: scans that break a rule, all in one message.
        StoreError: a store that cannot be read or written.
    """
    config = load_settings(preset=preset, config_file=config_file, overrides=overrides)
    with ExitStack() as stack:
        if use_ray:
            stack.enter_context(ray_session(workers=config.run.workers))
        bars: list[Progress] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress("prepare", total, "scans")))
            bars[0].update(done)

        def tell(note: str) -> None:
            print(f"prepare: note: {note}", flush=True)

        version = prepare_dataset(
            data,
            Store(store),
            config.data,
            append_to=append_to,
            use_ray=use_ray,
            on_case=show,
            on_note=tell,
        )
    counts = {split: len(version.patients(split)) for split in ("train", "validation", "test")}
    annotated = len({case.patient_id for case in version.cases if case.annotated})
    print(
        f"prepare: dataset {version.name} {version.version}: {sum(counts.values())} patients "
        f"({', '.join(f'{count} {split}' for split, count in counts.items() if count)}), "
        f"{annotated} annotated, {sum(case.rows for case in version.cases)} "
        f"{'bricks' if version.is_volumetric else 'slices'}",
        flush=True,
    )
    return version.url


def prepare_on(
    backend: str,
    *,
    data: str,
    store: str,
    preset: str,
    overrides: Sequence[str],
    append_to: str | None = None,
    cluster: Sequence[str] = (),
) -> str:
    """`prepare` on a backend, see `components.launch`; raises as it does, and as the backend."""
    arguments = ("--data", data, "--store", store, "--preset", preset, *repeated("--set", overrides))
    if append_to is not None:
        arguments += ("--append-to", append_to)
    return run_step(
        StepCommand(step="prepare", arguments=arguments, home=store, cluster=tuple(cluster)),
        backend,
        lambda: prepare(
            data=data,
            store=store,
            preset=preset,
            overrides=overrides,
            append_to=append_to,
            use_ray=backend == "ray",
        ),
    )
