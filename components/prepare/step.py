"""The preparation step: raw scans to a dataset version."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict

from components.launch import StepCommand, repeated, run_step
from components.settings import load_settings
from infra.datasets import prepare_dataset
from infra.datasets.convert import Digests
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
    only: str | None = None,
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
        only: URL of a list that `write_cases` wrote, of the scans to take; the others are left alone.
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
            only=None if only is None else read_cases(only),
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


def write_cases(url: str, cases: Iterable[Digests]) -> None:
    """Write a list of scans, with their content, for `prepare`'s `only`."""
    folder, _, name = url.rpartition("/")
    Store(folder).write_bytes(name, json.dumps([asdict(case) for case in cases], indent=1).encode())


def read_cases(url: str) -> dict[str, Digests]:
    """The list that `write_cases` wrote, by case id."""
    folder, _, name = url.rpartition("/")
    listed = [Digests(**values) for values in json.loads(Store(folder).read_bytes(name))]
    return {digests.case_id: digests for digests in listed}


def prepare_on(
    backend: str,
    *,
    data: str,
    store: str,
    preset: str,
    overrides: Sequence[str],
    append_to: str | None = None,
    only: str | None = None,
    cluster: Sequence[str] = (),
) -> str:
    """`prepare` on a backend, see `components.launch`; raises as it does, and as the backend."""
    arguments = ("--data", data, "--store", store, "--preset", preset, *repeated("--set", overrides))
    if append_to is not None:
        arguments += ("--append-to", append_to)
    if only is not None:
        arguments += ("--only", only)
    return run_step(
        StepCommand(step="prepare", arguments=arguments, home=store, cluster=tuple(cluster)),
        backend,
        lambda: prepare(
            data=data,
            store=store,
            preset=preset,
            overrides=overrides,
            append_to=append_to,
            only=only,
            use_ray=backend == "ray",
        ),
    )
