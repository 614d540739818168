"""The few requests to the Kubernetes API that following a RayJob takes, tried again where that is safe."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from infra.kuberay.errors import KubernetesError, KubernetesUnavailable, RayJobCancelled
from infra.kuberay.manifest import Resource
from infra.kuberay.stream import Stream
from infra.kuberay.timing import Timing

_PASSING = frozenset({429, 500, 502, 503, 504})
"""Answers that another try may change."""

Query = Mapping[str, str | int]


def connect() -> client.ApiClient:
    """A client for the cluster that this pod runs in; outside of one, for kubectl's current context."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException:
        config.load_kube_config(client_configuration=configuration)
    return api_client(configuration)


def api_client(configuration: client.Configuration) -> client.ApiClient:
    """A client that leaves it to `KubernetesApi` to try again."""
    configuration.retries = False
    return client.ApiClient(configuration)


class KubernetesApi:
    """RayJobs, pods and their logs in one namespace."""

    def __init__(
        self, api: client.ApiClient, namespace: str, timing: Timing, cancel: threading.Event | None = None
    ) -> None:
        """Args:
        api: from `connect` or `api_client`.
        namespace: of everything asked for.
        timing: how patient to be.
        cancel: ends waiting between tries with `RayJobCancelled`.
        """
        self._api, self.namespace, self._timing = api, namespace, timing
        self._cancel = cancel or threading.Event()
        self._jobs = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    def create_job(self, job: Resource) -> Resource:
        """Create `job`.

        Raises:
            KubernetesError: with the reason `AlreadyExists`, too, when a try whose answer was lost made it.
        """
        return self._read("POST", self._jobs, {"fieldValidation": "Strict"}, job)

    def job(self, name: str) -> Resource | None:
        """The job, or None when there is none."""
        return _or_none(lambda: self._read("GET", f"{self._jobs}/{name}"))

    def jobs(self, label_selector: str) -> list[Resource]:
        """The jobs with these labels."""
        return list(self._read("GET", self._jobs, {"labelSelector": label_selector})["items"])

    def delete_job(self, name: str, uid: str) -> None:
        """Ask for the removal of the job with this `uid`, with all that belongs to it; none is no error."""
        options = {
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": "Background", "preconditions": {"uid": uid},
        }  # fmt: skip
        try:
            self._read("DELETE", f"{self._jobs}/{name}", {}, options)
        except KubernetesError as error:
            if error.status not in (404, 409):  # 409: the name has another owner by now
                raise

    def watch_job(self, name: str, resource_version: str) -> Stream:
        """What happens to the job after `resource_version`: lines of JSON, until the watch's time is up."""
        return self._stream(
            self._jobs,
            {
                "watch": "true", "fieldSelector": f"metadata.name={name}",
                "resourceVersion": resource_version, "allowWatchBookmarks": "true",
                "timeoutSeconds": max(1, round(self._timing.watch)),
            },
            silence=self._timing.watch + self._timing.request,
        )  # fmt: skip

    def pod(self, name: str) -> Resource | None:
        """The pod, or None when there is none. One try only: who looks now and then can look later."""
        return _or_none(lambda: self._try("GET", f"{self._pods}/{name}", {}, None))

    def pod_log(self, name: str, container: str, since: str | None) -> Stream:
        """The lines of a container's log, each after its time, and new ones as they come.

        Args:
            name: of the pod.
            container: of the pod.
            since: time in RFC 3339, to the second.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        return self._stream(f"{self._pods}/{name}/log", query, silence=self._timing.silence)

    def with_patience(self, seconds: float) -> KubernetesApi:
        """The same for a job that is over: it tries for so long, and is not cancelled."""
        return KubernetesApi(self._api, self.namespace, replace(self._timing, patience=seconds))

    def _read(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Resource:
        """The answer to a request, which is repeated while it fails in ways that should pass."""
        start, pause = time.monotonic(), self._timing.backoff
        while True:
            try:
                return self._try(method, path, query or {}, body)
            except KubernetesUnavailable as error:
                waited = time.monotonic() - start
                if waited >= self._timing.patience:
                    raise KubernetesUnavailable(f"{error}; gave up after {waited:.0f} s") from error
                self._pause(max(pause, error.retry_after))
                pause = min(2 * pause, self._timing.backoff_limit)

    def _try(self, method: str, path: str, query: Query, body: Any) -> Resource:
        response = self._request(method, path, query, body, read_timeout=self._timing.request)
        try:
            answer = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise KubernetesUnavailable(f"{method} {path}: the answer broke off: {error}") from error
        return dict(answer)

    def _stream(self, path: str, query: Query, *, silence: float) -> Stream:
        return Stream(self._request("GET", path, query, None, read_timeout=silence))

    def _request(
        self, method: str, path: str, query: Query, body: Any, *, read_timeout: float
    ) -> urllib3.HTTPResponse:
        try:
            return self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "*/*", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(self._timing.request, read_timeout),
            )
        except urllib3.exceptions.HTTPError as error:
            raise KubernetesUnavailable(f"{method} {path}: no answer: {error}") from error
        except ApiException as error:
            raise _explained(method, path, error) from error

    def _pause(self, seconds: float) -> None:
        if self._cancel.wait(seconds):
            raise RayJobCancelled("told to stop while the API server did not answer")


def _explained(method: str, path: str, error: ApiException) -> KubernetesError | KubernetesUnavailable:
    """What the API server's answer means."""
    message, reason = _status(error)
    text = f"{method} {path}: {error.status} {message or error.reason}"
    if error.status in _PASSING or error.status == 0 or (error.status, reason) == (409, "Conflict"):
        return KubernetesUnavailable(text, retry_after=_retry_after(error))
    if error.status == 403:
        text += "; see the roles in k8s/base/rbac.yaml and the quota in k8s/base/quota.yaml"
    return KubernetesError(text, status=error.status, reason=reason)


def _status(error: ApiException) -> tuple[str, str]:
    """Message and reason of the Status object in the answer, where there is one."""
    try:
        status = json.loads(error.body)
        return str(status["message"]), str(status["reason"])
    except (TypeError, ValueError, KeyError):
        return "", ""


def _retry_after(error: ApiException) -> float:
    try:
        return max(0.0, float((error.headers or {}).get("Retry-After", "0")))
    except ValueError:  # HTTP allows a date, Kubernetes sends seconds
        return 0.0


def _or_none(read: Callable[[], Resource]) -> Resource | None:
    try:
        return read()
    except KubernetesError as error:
        if error.status == 404:
            return None
        raise
