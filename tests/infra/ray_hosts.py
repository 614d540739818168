"""A Ray cluster whose nodes are hosts with a network between them that can be cut: network namespaces.

Needs root and iproute2. All hosts see the same files. Host 0 is the head, and trains nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.infra.ray_cluster import RAY, REPOSITORY, wait_until

_PORT = 6379
_CABLE = "eth0"
"""A host's end of its cable."""
_KEEPALIVE = {
    f"RAY_grpc_{part}keepalive_{name}_ms": "3000" for part in ("client_", "") for name in ("time", "timeout")
}
"""As in k8s/rayjob.yaml. With Ray's own settings a cut connection hangs for minutes."""


@dataclass(frozen=True)
class RayHosts:
    prefix: str
    environment: Mapping[str, str]
    """Of processes that talk to the cluster."""

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """`command`, as it runs on `host`."""
        return ["ip", "netns", "exec", f"{self.prefix}{host}", *command]

    def cut(self, host: int) -> None:
        """Unplug `host`: what it sends is lost, and nobody tells the others."""
        ip("-n", f"{self.prefix}{host}", "link", "set", _CABLE, "down")

    def training_hosts(self) -> set[int]:
        """Hosts on which training workers are."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"RayTrainWorker" not in (process / "cmdline").read_bytes():
                    continue
                namespace = ip("netns", "identify", process.name).strip()
            except OSError:
                continue  # it has ended meanwhile
            if namespace.startswith(self.prefix):
                found.add(int(namespace.removeprefix(self.prefix)))
        return found


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str | None:
    """What keeps this machine from having hosts; None if nothing does."""
    if shutil.which("ip") is None:
        return "no iproute2"
    probe = f"arco-{secrets.token_hex(3)}"
    try:
        ip("netns", "add", probe)
        ip("netns", "del", probe)
    except OSError as error:
        return str(error)
    return None


@contextmanager
def start_hosts(count: int) -> Iterator[RayHosts]:
    """A head and `count` - 1 hosts with one CPU each."""
    prefix = f"arco{secrets.token_hex(2)}-"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_worker_prestart": "0", **_KEEPALIVE}
    environment |= {"GLOO_SOCKET_IFNAME": _CABLE}  # all hosts have this machine's name, which is 127.0.0.1
    folder = tempfile.mkdtemp(prefix="arco-ray-")  # short: Ray puts sockets there
    head = f"{_address(0)}:{_PORT}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _network(prefix, count, stack)
        hosts = RayHosts(prefix, environment | {"RAY_ADDRESS": head})
        for host in range(count):
            start = [*RAY, "start", "--block", f"--node-ip-address={_address(host)}"]
            start += ["--object-store-memory=100000000", "--disable-usage-stats"]
            if host == 0:
                start += ["--head", f"--port={_PORT}", "--num-cpus=0", f"--temp-dir={folder}"]
                start += ["--include-dashboard=false"]
            else:
                start += [f"--address={head}", "--num-cpus=1"]
            log = stack.enter_context((Path(folder) / f"host{host}.log").open("w"))
            node = subprocess.Popen(
                hosts.command(host, start), env=environment, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(_end, node)
            wait_until(lambda up=host + 1: _nodes(hosts) == up)
        yield hosts


def _network(prefix: str, count: int, stack: ExitStack) -> None:
    switch = f"{prefix}sw"
    ip("netns", "add", switch)
    stack.callback(ip, "netns", "del", switch)
    ip("-n", switch, "link", "add", "br0", "type", "bridge")
    ip("-n", switch, "link", "set", "br0", "up")
    for host in range(count):
        name = f"{prefix}{host}"
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", _CABLE, "netns", name, "type", "veth", "peer", "name", f"p{host}", "netns", switch)
        ip("-n", name, "addr", "add", f"{_address(host)}/24", "dev", _CABLE)
        ip("-n", name, "link", "set", _CABLE, "up")
        ip("-n", switch, "link", "set", f"p{host}", "master", "br0")
        ip("-n", switch, "link", "set", f"p{host}", "up")


def _address(host: int) -> str:
    return f"10.99.0.{10 + host}"


def _nodes(hosts: RayHosts) -> int:
    """Hosts that have joined."""
    count = (
        "import ray; ray.init(log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run(
        hosts.command(0, [sys.executable, "-c", count]),
        cwd=REPOSITORY, env=dict(hosts.environment), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def _end(node: subprocess.Popen[bytes]) -> None:
    """End `ray start --block`, which ends what it started; then whatever is left of its session."""
    node.terminate()
    try:
        node.wait(30)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
