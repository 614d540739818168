"""KubeRay's part: it gives a RayJob a head pod and a status, step by step as a test says, and removes it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from tests.infra.kuberay.api_server import NAMESPACE, ApiServer
from tests.infra.kuberay.objects import Refusal, Resource, timestamp

FINALIZER = "ray.io/rayjob-finalizer"
PACE = 0.005
"""Seconds between changes of a status."""


class JobHandle:
    """One RayJob, for the script that drives it."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self.server, self.name = server, name
        self.new_cluster()

    def new_cluster(self) -> None:
        self.cluster = f"{self.name}-{uuid.uuid4().hex[:5]}"
        self.head = f"{self.cluster}-head-{uuid.uuid4().hex[:5]}"

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Go on when so many requests of this kind have come, see `Call.is_a`."""
        end = time.monotonic() + 20
        while sum(call.is_a(kind) for call in self.server.calls) < count:
            assert time.monotonic() < end, f"waited in vain for {count} × {kind}"
            time.sleep(PACE)

    @property
    def job(self) -> Resource:
        return self.server.rayjobs.get(self.name)

    def status(self, deployment: str, driver: str = "", **more: Any) -> None:
        """Write the status as KubeRay does: whole."""
        time.sleep(PACE)
        status = {
            "jobDeploymentStatus": deployment, "jobStatus": driver, "jobId": self.name,
            "rayClusterName": self.cluster, "startTime": timestamp(), **more,
        }  # fmt: skip
        if deployment in ("", "Suspended"):
            del status["rayClusterName"]
        self._edit(lambda job: job.update(status=status))

    def start_head(self) -> None:
        self.server.pods.create(
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": self.head, "namespace": NAMESPACE,
                    "labels": {"ray.io/cluster": self.cluster, "ray.io/node-type": "head"},
                },
                "spec": {"containers": [{"name": "ray"}, {"name": "ray-job-submitter"}]},
            }
        )  # fmt: skip
        self.head_status("Running", restarts=0)
        self.server.logs.start(self.head)

    def head_status(self, phase: str, restarts: int) -> None:
        status = {"phase": phase, "containerStatuses": [{"name": "ray", "restartCount": restarts}]}
        self.server.pods.change(self.head, lambda pod: pod.update(status=status))

    def running(self, driver: str = "RUNNING", **more: Any) -> None:
        cluster = {"state": "ready", "head": {"podName": self.head}}
        self.status("Running", driver, **{"rayClusterStatus": cluster, **more})

    def log(self, *texts: str) -> None:
        for text in texts:
            self.server.logs.add(self.head, text)

    def end(self, deployment: str, driver: str, reason: str = "", message: str = "") -> None:
        """The driver has ended: first Ray knows, then KubeRay."""
        self.server.logs.end(self.head)
        cluster = {"state": "ready", "head": {"podName": self.head}}
        more = {"message": message, "rayClusterStatus": cluster}
        if reason:
            more["reason"] = reason
        self.status(deployment, driver, endTime=timestamp(), **more)

    def begin(self) -> None:
        """Everything up to a driver that runs."""
        self.status("Initializing")
        self.start_head()
        self.running("PENDING")
        self.running("RUNNING")

    def remove_pods(self) -> None:
        if self.head in self.server.pods.names():
            self.server.pods.delete(self.head)
            self.server.logs.end(self.head)

    def _edit(self, edit: Callable[[Resource], Any]) -> None:
        try:
            self.server.rayjobs.change(self.name, edit)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            raise JobRemoved(self.name) from refusal


class JobRemoved(Exception):
    """The job went while its script was at work."""


Script = Callable[[JobHandle], None]


def succeed(job: JobHandle) -> None:
    """What a good job looks like from the outside."""
    job.begin()
    job.log("step 1 of 2", "step 2 of 2")
    job.running("SUCCEEDED")
    job.end("Complete", "SUCCEEDED")


class Operator:
    """Drives every new RayJob by the next of the `scripts`; the last one serves all further jobs."""

    def __init__(self, server: ApiServer, *scripts: Script) -> None:
        self._server, self._scripts = server, list(scripts)
        self._handles: dict[str, JobHandle] = {}
        self.errors: list[BaseException] = []
        self.removes = True
        """Whether it takes its finalizer off deleted jobs."""
        threading.Thread(target=self._run, daemon=True).start()

    def wait_until_idle(self) -> None:
        """Wait until all deleted jobs are gone: who cancels does not wait for that."""
        end = time.monotonic() + 5
        while self._server.rayjobs.names() and time.monotonic() < end:
            time.sleep(PACE)

    def _run(self) -> None:
        version = 0
        while not self._server.closing.is_set():
            version = self._serve(version)

    def _serve(self, version: int) -> int:
        """Do what the events after `version` ask for; where to go on."""
        for kind, job in self._server.rayjobs.watch(version, 3600):
            if kind in ("BOOKMARK", "ERROR"):
                return self._server.clock.version
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            if kind == "ADDED":
                self._server.rayjobs.change(name, lambda one: one["metadata"].update(finalizers=[FINALIZER]))
                self._handles[uid] = JobHandle(self._server, name)
                threading.Thread(target=self._drive, args=(self._handles[uid],), daemon=True).start()
            elif kind == "MODIFIED" and job["metadata"].get("deletionTimestamp") and self.removes:
                handle = self._handles.pop(uid, None)
                if handle:
                    handle.remove_pods()
                    self._server.rayjobs.change(name, lambda one: one["metadata"].update(finalizers=[]))
        return version

    def _drive(self, handle: JobHandle) -> None:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            script(handle)
        except JobRemoved:
            pass
        except BaseException as error:
            self.errors.append(error)
