"""A Docker of the tests' own, and the image built in it, for the tests with the marker `container`.

Its base image is a stand-in: no registry need be in reach. It is a small Debian with Python, under the name
that the Dockerfile gives, with this machine's certificates and pip configuration, so that pip finds packages.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.images.build import DOCKERFILE, ROOT, default_tag

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_SUITE = "bookworm"
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


@dataclass(frozen=True)
class Containers:
    """A Docker daemon with the image in it."""

    environment: dict[str, str]
    """Of programs that are to talk to it."""
    image: str
    bill: Path
    """The image's SBOM."""

    def run(self, *arguments: str, image: str | None = None) -> subprocess.CompletedProcess[str]:
        """`docker run` as Kubernetes would: no network, root file system read-only, no capabilities."""
        restricted = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
        volumes = ("--tmpfs=/tmp:exec,mode=1777,size=1g", "--shm-size=512m")
        return docker(self.environment, "run", "--rm", *restricted, *volumes, image or self.image, *arguments)


def docker(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Docker's command line, whatever it answers."""
    return subprocess.run(
        ["docker", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    """The image for CPUs, built by the command that users have; skips where that cannot be."""
    client = _required_programs()
    folder = Path(tempfile.mkdtemp(prefix="arco-docker-"))  # a socket's path has to be short
    try:
        environment = _environment(folder, client)
        daemon = _start(folder, environment)
        try:
            _import_base(folder, environment)
            yield _build(folder, environment)
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _required_programs() -> Path:
    """The Docker client to use. Skips the test that asks, where something is missing."""
    if os.geteuid() != 0:
        pytest.skip("containers need root here: the tests start a Docker daemon of their own")
    for program in ("dockerd", "mmdebstrap", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"no containers here: {program} is missing (apt-get install docker.io mmdebstrap)")
    for folder in os.get_exec_path():
        client = Path(folder) / "docker"
        if client.is_file() and _builds(client):
            return client
    pytest.skip("no containers here: no docker on the PATH has BuildKit (apt-get install docker.io)")


def _builds(client: Path) -> bool:
    """Whether it has BuildKit: up to version 22 of itself, from then on by a plugin."""
    version = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.search(r"Docker version (\d+)", version)
    if major is not None and int(major[1]) < 23:
        return True
    plugin = subprocess.run([client, "buildx", "version"], capture_output=True, check=False)
    return plugin.returncode == 0


def _environment(folder: Path, client: Path) -> dict[str, str]:
    """A PATH on which that client comes first, and its daemon's address."""
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").symlink_to(client)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    settings = {"PATH": path, "DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_CONFIG": str(folder)}
    dropped = ("ARCO_IMAGE", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY")
    return {key: value for key, value in os.environ.items() if key not in dropped} | settings


def _start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A daemon that leaves this machine's network alone. Skips where it does not start."""
    log = folder / "log"
    options = {
        "host": environment["DOCKER_HOST"],
        "data-root": folder / "data",
        "exec-root": folder / "exec",
        "pidfile": folder / "pid",
        "default-ulimit": "nofile=20000:20000",
        "iptables": "false",
        "bridge": "none",
    }
    with log.open("wb") as output:
        command = ["dockerd", *(f"--{key}={value}" for key, value in options.items())]
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
    for _ in range(120):
        if docker(environment, "info").returncode == 0:
            return daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.5)
    daemon.kill()
    daemon.wait()
    pytest.skip(f"no containers here: dockerd does not start: {log.read_text()[-500:]}")


def _import_base(folder: Path, environment: dict[str, str]) -> None:
    """Make the stand-in, under the name of the Dockerfile's base image."""
    name = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert name is not None
    archive = folder / "base.tar"
    (folder / "tmp").mkdir()
    # In a mount namespace of its own: killed in between, it would leave this machine's /proc and /sys below
    # the folder, which is removed.
    command = ["unshare", "--mount", "mmdebstrap", "--variant=minbase"]
    command += ["--include=python3,python3-pip,python3-venv"]
    command += ["--dpkgopt=force-unsafe-io", *_hooks(folder), _SUITE, str(archive)]
    command += [str(_SOURCES)] if _SOURCES.exists() else []
    made = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder / "tmp")},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"no containers here: mmdebstrap fails: {made.stderr[-500:]}")
    imported = docker(environment, "import", str(archive), name[1])
    assert imported.returncode == 0, imported.stderr
    archive.unlink()


def _hooks(folder: Path) -> Iterator[str]:
    """What mmdebstrap is to put into the stand-in: what pip on this machine uses."""
    settings = _pip_settings()
    copied = {Path(CERTIFICATES), *(Path(url) for url in settings.get("cert", "").split())}
    copied |= {Path(url) for url in settings.get("find-links", "").split() if Path(url).is_absolute()}
    configuration = folder / "pip.conf"
    lines = [f"{key} = {value}" for key, value in settings.items()]
    configuration.write_text("\n".join(["[global]", *lines, ""]))
    for path in sorted(path for path in copied if path.exists()):
        kind = "copy-in" if path.is_dir() else "upload"
        target = path.parent if path.is_dir() else path
        yield f'--customize-hook=mkdir -p "$1{path.parent}"'
        yield f"--customize-hook={kind} {path} {target}"
    yield f"--customize-hook=upload {configuration} /etc/pip.conf"


def _pip_settings() -> dict[str, str]:
    """Where this machine's pip finds packages, but for indexes that are folders of this machine."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in ("cert", "index-url", "extra-index-url", "find-links", "trusted-host", "timeout"):
            words = [word for word in str(ast.literal_eval(value)).split() if not word.startswith("file:")]
            if words:
                settings.setdefault(key, " ".join(words))  # the environment's come first
    return settings


def _build(folder: Path, environment: dict[str, str]) -> Containers:
    """What `make images` does; the stand-in knows PyTorch's folder, and has the host's network only."""
    command = [sys.executable, "-m", "infra.images.build", "--torch-index", "", "--sbom", str(folder)]
    built = subprocess.run(
        [*command, "--", "--network", "host"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2400,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (bill,) = folder.glob("*.cdx.json")
    return Containers(environment, default_tag("cpu"), bill)
