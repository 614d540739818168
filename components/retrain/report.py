"""What a retraining decided, and why: in its run folder, on the terminal and, if need be, as an alert."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException, InvalidURL
from typing import Any

from components.retrain.plan import RetrainSettings, registry_of
from infra.storage import NotFound, Store

OUTCOME, REPORT = "outcome.json", "report.md"
ALERT_ENVIRONMENT = "ARCO_ALERT_URL"
"""Where alerts are sent as JSON, by POST: a chat's or a pager's webhook."""
FINAL = ("promoted", "kept", "bad scans")
"""Decisions after which the same scans are not tried again."""
BAD = "bad: "
"""How the reason begins for which a scan is left out, and somebody must look at it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The decision of one night."""

    name: str
    decision: str
    """`promoted`, `kept`, `nothing new`, `busy`, `bad folder`, `bad scans` or `failed`."""
    reason: str
    release: int
    """In service when the night began; 0 for none."""
    lease: int | None = None
    """Of the night; None for one that began no work."""
    in_service: int | None = None
    """In service after it, where that is another one."""
    new: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    dataset: str | None = None
    checkpoint: str | None = None
    rule: str | None = None
    classes: tuple[dict[str, Any], ...] = ()
    """What the judgement found, class by class."""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))

    @property
    def final(self) -> bool:
        """Whether the same scans need not be looked at again."""
        return self.decision in FINAL

    @staticmethod
    def read(run: str) -> Outcome | None:
        """The outcome in a run folder, None before there is one."""
        try:
            values = json.loads(Store(run).read_bytes(OUTCOME))
        except NotFound:
            return None
        return Outcome(**values | {key: tuple(values[key]) for key in ("new", "classes")})


def finish(settings: RetrainSettings, outcome: Outcome, *, run: str | None, alert: bool) -> str:
    """Write, print and, with `alert`, send the outcome; returns the URL of its report.

    A night without a run folder leaves its report among the model's nights. The outcome is written last: a
    step that is killed here and started again tells it twice rather than never.
    """
    folder = registry_of(settings).folder
    night = f"{folder}/nights/{outcome.created.replace(':', '')}"
    store, prefix = (Store(settings.store), f"{night}-") if run is None else (Store(run), "")
    url = store.join(f"{prefix}{REPORT}")
    print(f"retrain {outcome.name}: {outcome.decision}: {outcome.reason}\nreport   {url}", flush=True)
    if alert:
        _alert(settings, outcome, url)
    store.write_bytes(f"{prefix}{REPORT}", report(outcome).encode())
    store.write_bytes(f"{prefix}{OUTCOME}", json.dumps(asdict(outcome), indent=1).encode())
    return url


def report(outcome: Outcome) -> str:
    """The outcome as Markdown."""
    lines = [
        f"# {outcome.name}: {outcome.decision}",
        "",
        outcome.reason,
        "",
        f"* time: {outcome.created}",
        f"* in service before: release {outcome.release}",
        f"* in service after: release {outcome.in_service or outcome.release}",
    ]
    lines += [f"* dataset: {outcome.dataset}"] if outcome.dataset else []
    lines += [f"* new model: {outcome.checkpoint}"] if outcome.checkpoint else []
    lines += [f"* rule: {outcome.rule}"] if outcome.rule else []
    if outcome.classes:
        lines += ["", *_table(outcome.classes)]
    if outcome.new:
        lines += ["", f"## New scans ({len(outcome.new)})", "", *(f"* {name}" for name in outcome.new)]
    if outcome.left_out:
        lines += ["", f"## Left out ({len(outcome.left_out)})", ""]
        lines += [f"* {name}: {why}" for name, why in sorted(outcome.left_out.items())]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["class", "patients", "Dice in service", "Dice new", "difference", "lower bound"]
    head += ["best Dice before", "of release", "lower bound to it", "passes"]
    keys = ["class", "patients", "old", "new", "difference", "lower"]
    keys += ["best", "best_release", "best_lower", "passes"]
    body = [[_cell(row[key]) for key in keys] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _alert(settings: RetrainSettings, outcome: Outcome, url: str) -> None:
    """Say that somebody must look: on the terminal, to a webhook, where one is set, and in the store."""
    message = {"text": f"ARCO {outcome.name}: {outcome.decision}: {outcome.reason}", "report": url}
    print(f"ALERT {message['text']}", flush=True)
    if hook := os.environ.get(ALERT_ENVIRONMENT):
        _post(hook, message)
    path = f"{registry_of(settings).folder}/alerts/{outcome.created.replace(':', '')}.json"
    Store(settings.store).write_bytes(path, json.dumps(message, indent=1).encode())


def _post(hook: str, message: Mapping[str, str]) -> None:
    try:
        request = urllib.request.Request(
            hook, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()
    except (OSError, ValueError, HTTPException) as error:  # the decision stands, and is in the store
        # What is wrong with a URL is told with the URL, which may hold a secret.
        reason = "it is no URL" if isinstance(error, ValueError | InvalidURL) else str(error)
        print(f"ALERT could not be sent to {ALERT_ENVIRONMENT}: {reason}", flush=True)
