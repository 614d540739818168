"""Alerts reach their webhook; where they do not, the decision stands and no secret is printed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from components.retrain.plan import RetrainSettings
from components.retrain.report import ALERT_ENVIRONMENT, Outcome, finish


class Webhook:
    """A server that keeps what is posted, and answers `status`, or nonsense where that is 0."""

    def __init__(self) -> None:
        self.status = 200
        self.posted: list[dict[str, str]] = []
        handler = type("Handler", (_Handler,), {"hook": self})
        self.server = HTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/secret"


class _Handler(BaseHTTPRequestHandler):
    hook: Webhook

    def do_POST(self) -> None:
        self.hook.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.hook.status == 0:
            self.wfile.write(b"what?\r\n\r\n")
            return
        self.send_response(self.hook.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    with hook.server:
        threading.Thread(target=hook.server.serve_forever, args=(0.05,), daemon=True).start()
        yield hook
        hook.server.shutdown()


def tell(store: Path) -> str:
    """The end of a night whose model was kept; the URL of its report."""
    settings = RetrainSettings(raw="raw", store=str(store), name="heart")
    outcome = Outcome(name="heart", decision="kept", reason="worse in ring", release=1)
    return finish(settings, outcome, run=str(store / "runs/night"), alert=True)


def test_an_alert_says_what_was_decided_and_where_to_look(
    webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALERT_ENVIRONMENT, webhook.url)
    report = tell(tmp_path)
    assert webhook.posted == [{"text": "ARCO heart: kept: worse in ring", "report": report}]
    (kept,) = (tmp_path / "service/heart/alerts").iterdir()
    assert json.loads(kept.read_text()) == webhook.posted[0]


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        (None, 500, "HTTP Error 500"),
        (None, 0, "what?"),
        ("http://127.0.0.1:9/secret", 200, "refused"),
        ("secret", 200, "it is no URL"),
        ("http://a secret/b", 200, "it is no URL"),
    ],
)
def test_an_alert_that_cannot_be_sent_changes_nothing_else(
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str | None,
    status: int,
    reason: str,
) -> None:
    webhook.status = status
    monkeypatch.setenv(ALERT_ENVIRONMENT, url or webhook.url)
    tell(tmp_path)
    outcome = Outcome.read(str(tmp_path / "runs/night"))
    assert outcome is not None and outcome.decision == "kept"
    printed = capsys.readouterr().out
    assert f"ALERT could not be sent to {ALERT_ENVIRONMENT}: " in printed and reason in printed
    assert "secret" not in printed
    assert list((tmp_path / "service/heart/alerts").iterdir())
