"""An HTTP server that answers as a Kubernetes API server does, for RayJobs, pods and their logs.

What is as in the real one: strict validation by the CRD's schema with its defaults, uid, generation and
resource versions, 409 for a name that is taken, 404, preconditions and finalizers of deletions, watches from
a version with bookmarks and the ERROR event of an expired one, roles (read from k8s/base/rbac.yaml), bearer
tokens, Status objects, logs that follow, from a time on.

What is not: one namespace; a schema error is always 422 where the real one says 400 for an unknown field; CEL
rules are not evaluated; `fieldValidation` other than Strict is refused; patches are JSON merge patches only;
no admission webhooks and no quota, no garbage collection (the operator's double removes what belongs to a
job), no priority and fairness: 429 comes when a test orders it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.infra.kuberay.crd import REPOSITORY
from tests.infra.kuberay.faults import Fault
from tests.infra.kuberay.logs import Logs
from tests.infra.kuberay.objects import Clock, Objects, Refusal, Resource, status_object

NAMESPACE = "arco"
PIPELINE, ADMIN = "token-of-the-pipeline", "token-of-an-admin"


@dataclass(frozen=True)
class Call:
    """A request, as it came."""

    verb: str
    resource: str
    name: str
    query: dict[str, str] = field(default_factory=dict)

    def is_a(self, kind: str) -> bool:
        """Whether `kind` is the request's verb, or verb and resource."""
        return kind in (self.verb, f"{self.verb} {self.resource}")


class ApiServer:
    """Start it with `with`; `url` is where it listens."""

    def __init__(self) -> None:
        clock = Clock()
        self.clock = clock
        self.rayjobs, self.pods = Objects("rayjobs", clock), Objects("pods", clock)
        self.logs = Logs(clock)
        self.calls: list[Call] = []
        """All requests, in order."""
        self.before: dict[int, Callable[[], object]] = {}
        """What happens just before the request of that number is answered."""
        self.call_times: list[float] = []
        self.faults: dict[int, Fault] = {}
        """What goes wrong with the request of that number, from 0."""
        self.fault_of: dict[tuple[str, int], Fault] = {}
        """As `faults`, by the number among the requests of a kind: `("watch", 0)`, `("get pods/log", 2)`."""
        self.down = threading.Event()
        """While set, every connection is reset."""
        self.closing = threading.Event()
        self._rules = _rules()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.clock.close()
        self._http.shutdown()
        self._http.server_close()

    def record(self, call: Call) -> Fault | None:
        with self._lock:
            self.before.get(len(self.calls), _nothing)()
            self.calls.append(call)
            self.call_times.append(time.monotonic())
            for kind in (call.verb, f"{call.verb} {call.resource}"):
                number = sum(one.is_a(kind) for one in self.calls) - 1
                if (kind, number) in self.fault_of:
                    return self.fault_of[kind, number]
            return self.faults.get(len(self.calls) - 1)

    def authorize(self, token: str, call: Call) -> None:
        if token == ADMIN:
            return
        if token != PIPELINE:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if (call.resource, call.verb) not in self._rules:
            raise Refusal(403, "Forbidden", f"{call.resource} is forbidden: the role cannot {call.verb} it")


def _nothing() -> None:
    pass


def _rules() -> set[tuple[str, str]]:
    """Resources and verbs that the pipeline's role in k8s/ allows."""
    text = (REPOSITORY / "k8s/base/rbac.yaml").read_text()
    (role,) = (one for one in yaml.safe_load_all(text) if one["kind"] == "Role")
    return {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: ApiServer

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, verb: str) -> None:
        try:
            self._answer_or_fail(verb)
        except OSError:
            self.close_connection = True  # the client has had enough

    def _answer_or_fail(self, verb: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        resource, name, query = self._route()
        if verb == "get" and not name:
            verb = "watch" if query.get("watch") == "true" else "list"
        call = Call(verb, resource, name, query)
        if self.api.down.is_set():
            return self._reset()
        fault = self.api.record(call)
        self._cut_after = fault.cut_after if fault else None
        if fault and fault.signal:
            os.kill(os.getpid(), fault.signal)
        if fault and fault.delay:
            self.api.closing.wait(fault.delay)
        if fault and fault.forget:
            self.api.rayjobs.forget()
        if fault and fault.reset == "before":
            return self._reset()
        try:
            if fault and fault.refusal:
                raise fault.refusal
            self.api.authorize(self.headers.get("Authorization", "").removeprefix("Bearer "), call)
            answer = self._result(call, json.loads(body) if body else {})
        except Refusal as refusal:
            headers = {"Retry-After": fault.retry_after} if fault and fault.retry_after else {}
            return self._send(refusal.status, status_object(refusal), headers)
        if fault and fault.reset == "after":
            return self._reset()
        if isinstance(answer, dict):
            self._send(201 if call.verb == "create" else 200, answer, {})
        else:
            self._send_lines(answer)

    def _route(self) -> tuple[str, str, dict[str, str]]:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        where = parts[3:] if parts[0] == "apis" else parts[2:]
        if where[:2] != ["namespaces", NAMESPACE]:
            return "/".join(parts), "", {}
        resource, name, *subresource = [*where[2:], ""][: max(2, len(where) - 2)]
        return "/".join([resource, *subresource]), name, dict(parse_qsl(url.query))

    def _result(self, call: Call, body: Resource) -> Resource | Iterator[bytes]:
        if call.resource == "pods/log":
            self.api.pods.get(call.name)
            return self.api.logs.read(call.name, call.query)
        objects = {"rayjobs": self.api.rayjobs, "pods": self.api.pods}.get(call.resource)
        if objects is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        if call.verb == "get":
            return objects.get(call.name)
        if call.verb == "create":
            if call.query.get("fieldValidation") != "Strict":
                raise Refusal(
                    400, "BadRequest", "this double validates strictly: ask for fieldValidation=Strict"
                )
            return objects.create(body)
        if call.verb == "delete":
            return objects.delete(call.name, (body.get("preconditions") or {}).get("uid"))
        if call.verb == "patch":
            return objects.change(call.name, lambda one: _merge(one, body))
        if call.verb == "watch":
            return _events(objects, call.query)
        found, version = objects.list(_selector(call.query))
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": found}

    def _send(self, status: int, answer: Resource, headers: dict[str, str]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self._cut_after is not None:
            self.wfile.write(data[: self._cut_after])
            return self._reset()
        self.wfile.write(data)

    def _send_lines(self, lines: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        for line in lines:
            if self._cut_after is not None and sent + len(line) > self._cut_after:
                self._chunk(line[: self._cut_after - sent])
                return self._reset()
            self._chunk(line)
            sent += len(line)
            if self.api.down.is_set():
                return self._reset()
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _reset(self) -> None:
        """End the connection the hard way."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _events(objects: Objects, query: dict[str, str]) -> Iterator[bytes]:
    matches = _selector(query)
    seconds = float(query.get("timeoutSeconds", "60"))
    for kind, one in objects.watch(int(query["resourceVersion"]), seconds):
        wanted = query.get("allowWatchBookmarks") == "true" if kind == "BOOKMARK" else True
        if wanted and (kind in ("BOOKMARK", "ERROR") or matches(one)):
            yield json.dumps({"type": kind, "object": one}).encode() + b"\n"


def _selector(query: dict[str, str]) -> Any:
    """Whether an object has the labels, and the name, that are asked for."""
    labels = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
    fields = dict(part.split("=") for part in query.get("fieldSelector", "").split(",") if part)

    def matches(one: Resource) -> bool:
        found = one["metadata"].get("labels") or {}
        name = fields.get("metadata.name", one["metadata"]["name"])
        return name == one["metadata"]["name"] and labels.items() <= found.items()

    return matches


def _merge(one: Resource, patch: Resource) -> None:
    version = (patch.get("metadata") or {}).get("resourceVersion")
    if version not in (None, one["metadata"]["resourceVersion"]):
        raise Refusal(
            409, "Conflict", "the object has been modified; please apply your changes to the latest"
        )
    for key, value in patch.items():
        if value is None:
            one.pop(key, None)
        elif isinstance(value, dict) and isinstance(one.get(key), dict):
            if key == "metadata":
                value = {k: v for k, v in value.items() if k != "resourceVersion"}
            _merge_into(one[key], value)
        else:
            one[key] = value


def _merge_into(one: Resource, patch: Resource) -> None:
    for key, value in patch.items():
        if value is None:
            one.pop(key, None)
        elif isinstance(value, dict) and isinstance(one.get(key), dict):
            _merge_into(one[key], value)
        else:
            one[key] = value
