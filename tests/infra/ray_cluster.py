"""A Ray cluster as on servers, of several nodes on this machine: with a dashboard, for those with its token.

It lives in processes of its own, so that a test may kill any of them. Run as a program, this module is the
cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_PATIENCE = 300.0
_NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@dataclass(frozen=True)
class RayCluster:
    dashboard: str
    environment: Mapping[str, str]
    """Of processes that talk to the cluster."""
    process: subprocess.Popen[str]

    def add_node(self) -> None:
        """One more node, with one CPU."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("add\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "added\n"

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`command` in the repository, to its end."""
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ray_job_submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        """`command` as a job, to its end."""
        options = ["job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return self.run(*RAY, *options, "--", *command)

    def training_workers(self) -> dict[int, int]:
        """Process ids of the training workers, and of their nodes."""
        return self.workers(b"RayTrainWorker")

    def workers(self, title: bytes) -> dict[int, int]:
        """Process ids of the workers with `title` in their names, and of their nodes."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                ours = self.environment["RAY_AUTH_TOKEN"].encode() in (folder / "environ").read_bytes()
                if ours and title in (folder / "cmdline").read_bytes():
                    found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
        return found


def wait_until(happened: Callable[[], object], seconds: float = _PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.1)


@contextmanager
def start_cluster(variables: Mapping[str, str], *, nodes: int = 3) -> Iterator[RayCluster]:
    """A cluster whose processes have `variables` in their environment."""
    # `python` in a job is the first one on the cluster's path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_worker_prestart": "0", **variables}
    folder = tempfile.mkdtemp(prefix="arco-ray-")  # short: Ray puts sockets there
    command = [sys.executable, "-m", __name__, folder, str(nodes)]
    log = Path(folder) / "log"
    with log.open("w") as errors, subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready, log.read_text()
            address, dashboard = ready.split()
            environment["RAY_ADDRESS"] = address
            cluster = RayCluster(f"http://{dashboard}", environment, process)
            # Its agent takes its time. No working folder: Ray would drop the package after this job, while
            # the next one takes it to be there.
            probe = [*RAY, "job", "submit", "--address", cluster.dashboard, "--", "true"]
            wait_until(lambda: cluster.run(*probe).returncode == 0)
            yield cluster
        finally:
            process.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def _main(folder: str, nodes: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # where Ray prints what nodes have to say
    import ray
    from ray.cluster_utils import Cluster

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "dashboard_agent_listen_port": 0})

    def add(count: int) -> None:
        target = len(ray.nodes()) + count
        for number in range(target - count, target):
            # Nodes of one machine would unpack a job's working folder into one place, over each other.
            cluster.add_node(**_NODE, runtime_env_dir_name=f"resources-{number}", wait=False)
        wait_until(lambda: len(ray.nodes()) == target)

    cluster.connect()
    add(int(nodes))
    print(cluster.address, cluster.webui_url, file=answers, flush=True)
    for _ in sys.stdin:
        add(1)
        print("added", file=answers, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
