"""An S3 server on this machine for the time of a benchmark."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from infra.storage import Store

START_SECONDS = 60


@contextmanager
def s3_server(folder: Path, script: str | None) -> Iterator[tuple[str, Store]]:
    """Name and an empty bucket of a server: moto, or the one that `script` starts.

    A script is called as `SCRIPT FOLDER PORT PORT`, and the `_down.sh` beside it with the folder; its server
    takes the keys AKTEST and SKTESTSECRET.
    """
    port, other = _free_port(), _free_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKTEST",
        "AWS_SECRET_ACCESS_KEY": "SKTESTSECRET",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    if script is None:
        command = [sys.executable, "-m", "moto.server", "-p", str(port)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                _wait(port)
                yield "moto", _bucket()
            finally:
                server.terminate()
        return
    home = folder / "s3-server"
    subprocess.run([script, str(home), str(port), str(other)], check=True, stdout=subprocess.DEVNULL)
    try:
        yield Path(script).stem, _bucket()
    finally:
        down = Path(script).with_name(Path(script).name.replace("_up", "_down"))
        subprocess.run([down, str(home)], check=True, stdout=subprocess.DEVNULL)


def _bucket() -> Store:
    boto3.session.Session().client("s3").create_bucket(Bucket="bench")
    return Store("s3://bench")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not answer on port {port} within {START_SECONDS} s")
