"""The server of a benchmark is started, used and ended, by moto or by a script."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.s3_server import s3_server

UP = """#!/bin/sh
mkdir -p "$1"
"{python}" -m moto.server -p "$2" > "$1/log" 2>&1 &
echo $! > "$1/pid"
for i in $(seq 100); do
    "{python}" -c "import socket; socket.create_connection(('127.0.0.1', $2))" 2> "$1/wait" && exit 0
    sleep 0.1
done
exit 1
"""
DOWN = """#!/bin/sh
kill "$(cat "$1/pid")"
"""


@pytest.mark.s3
@pytest.mark.parametrize("scripted", [False, True], ids=["moto", "script"])
def test_a_server_lives_as_long_as_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: bool
) -> None:
    for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "")  # puts back what the server sets
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "")
    script = None
    if scripted:
        script = tmp_path / "server_up.sh"
        script.write_text(UP.format(python=sys.executable))
        script.with_name("server_down.sh").write_text(DOWN)
        for path in tmp_path.glob("*.sh"):
            path.chmod(0o755)
    with s3_server(tmp_path, None if script is None else str(script)) as (name, bucket):
        assert name == ("server_up" if scripted else "moto")
        bucket.write_bytes("a/b", b"content")
        assert bucket.read_bytes("a/b") == b"content"
        port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
    with pytest.raises(ConnectionRefusedError):
        for _ in range(100):
            socket.create_connection(("127.0.0.1", port or 0), timeout=5).close()
