"""S3 servers for the tests with the marker `s3`: moto in this process, and a real one where there is one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest


@dataclass(frozen=True)
class S3Server:
    """Where a server is, and how it is spoken to."""

    endpoint: str
    environment: dict[str, str]
    buckets: set[str] = field(default_factory=set)

    def enter(self, monkeypatch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
        """Make it the one that stores talk to, straight or by way of a proxy at `endpoint`; with a bucket."""
        for key, value in {**self.environment, "AWS_ENDPOINT_URL": self.endpoint}.items():
            monkeypatch.setenv(key, value)
        if not self.buckets:
            boto3.session.Session().client("s3").create_bucket(Bucket="arco")
            self.buckets.add("arco")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint or self.endpoint)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield S3Server(f"http://{host}:{port}", environment)
    server.stop()


@pytest.fixture(scope="session")
def real_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A Ceph RADOS Gateway, started by the script that `$ARCO_S3_SERVER_SCRIPT` names.

    Skips without a script, or where the gateway is not installed.
    """
    script = os.environ.get("ARCO_S3_SERVER_SCRIPT")
    if not script or not Path(script).is_file():
        pytest.skip(f"no real S3 server here: ARCO_S3_SERVER_SCRIPT = {script!r} names no script")
    if shutil.which("radosgw") is None:
        pytest.skip("no real S3 server here: radosgw is not installed")
    folder = tmp_path_factory.mktemp("ceph") / "rgw"
    port, monitor = _free_ports()
    stop = Path(script).with_name(Path(script).name.replace("_up", "_down"))
    try:
        started = subprocess.run(
            ["bash", script, str(folder), str(port), str(monitor)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if started.returncode:  # its software is here, and somebody named the script: no reason to skip
            pytest.fail(f"the S3 server of {script} did not start: {started.stderr[-500:]}")
        yield S3Server(
            f"http://127.0.0.1:{port}",
            {
                "AWS_ACCESS_KEY_ID": "AKTEST",
                "AWS_SECRET_ACCESS_KEY": "SKTESTSECRET",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            },
        )
    finally:
        subprocess.run(["bash", str(stop), str(folder)], check=False, timeout=60)


@pytest.fixture
def aws(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores talk to moto."""
    moto_server.enter(monkeypatch)


@pytest.fixture
def real_aws(real_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores talk to a real S3 server."""
    real_s3_server.enter(monkeypatch)


def _free_ports() -> tuple[int, int]:
    """A port, and one that has a free one after it, as a monitor needs."""
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        while True:
            with socket.socket() as second, socket.socket() as after:
                second.bind(("127.0.0.1", 0))
                number = second.getsockname()[1]
                try:
                    after.bind(("127.0.0.1", number + 1))
                except OSError:
                    continue
                return first.getsockname()[1], number
