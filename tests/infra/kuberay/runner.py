"""`run_ray_job` against the double, and what it showed."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from typing import Any

from infra.kuberay import RayJobOutcome, RayJobSpec, run_ray_job
from tests.infra.kuberay.api_server import NAMESPACE, PIPELINE, ApiServer
from tests.infra.kuberay.client import QUICK, client_of


class Runner:
    """A submitter; several may share a server."""

    def __init__(self, server: ApiServer, attempts: Any = None) -> None:
        self._server = server
        self.shown: list[str] = []
        self.attempts = attempts or itertools.count(1)

    def __call__(self, spec: RayJobSpec, **options: Any) -> RayJobOutcome:
        return run_ray_job(
            spec,
            namespace=NAMESPACE,
            claim_attempt=lambda: next(self.attempts),
            api=client_of(self._server, PIPELINE),
            show=self.shown.append,
            **{"timing": QUICK, **options},
        )

    def start(self, spec: RayJobSpec, **options: Any) -> Future[RayJobOutcome]:
        """The same in a thread."""
        future: Future[RayJobOutcome] = Future()

        def work() -> None:
            try:
                future.set_result(self(spec, **options))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    @property
    def driver_log(self) -> list[str]:
        """What the driver printed."""
        return [line for line in self.shown if not line.startswith(("ray job", "could not"))]
