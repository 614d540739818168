"""An HTTP server that answers as the API of Kubeflow Pipelines does (v2beta1), as far as `kfp.Client` asks.

What is as in the real one: uploads are parsed as pipeline specs, unknown fields and all; names are taken
once (409); lists are filtered and come in pages; runs and schedules need an experiment and a version that
exist and parameters that the version's pipeline declares, of their types, the ones without defaults given;
cron lines have six fields; unknown fields of requests are refused; 404 for what is not there.

What is not: nothing runs (tests say what states a run goes through), one user and no authorisation but an
optional token, no sorting, one kind of filter (EQUALS of display_name), no caching.
"""

from __future__ import annotations

import email
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

Json = dict[str, Any]
PREFIX = "/apis/v2beta1/"
PAGE = 2
"""Entries of a page, whatever is asked for: as many is the most that a server must give."""
_TYPES = {
    "STRING": str, "NUMBER_DOUBLE": (int, float), "NUMBER_INTEGER": int, "BOOLEAN": bool, "LIST": list,
    "STRUCT": dict,
}  # fmt: skip
_RUN = {"experiment_id", "display_name", "pipeline_version_reference", "runtime_config", "service_account"}
_SCHEDULE = _RUN | {"mode", "trigger", "max_concurrency", "no_catchup", "description"}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeflowServer:
    """What it keeps, by id; `url` is where it listens."""

    def __init__(self) -> None:
        self.pipelines: dict[str, Json] = {}
        self.versions: dict[str, Json] = {}
        self.experiments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.recurring: dict[str, Json] = {}
        self.states: list[Json] = [{"state": "SUCCEEDED"}]
        """What a run looks like from one look at it to the next; the last stays."""
        self.failures: list[int] = []
        """Statuses of the answers to the next looks at a run."""
        self.token: str | None = None
        self.url = ""

    # One method a request, by its verb and the parts of its path.

    def get_healthz(self, query: Json, body: Any) -> Json:
        return {"multi_user": False}

    def get_pipelines(self, query: Json, body: Any) -> Json:
        return _page("pipelines", list(self.pipelines.values()), query)

    def post_pipelines_upload(self, query: Json, body: Any) -> Json:
        name = query["name"]
        if any(one["display_name"] == name for one in self.pipelines.values()):
            raise Refused(409, f"The name {name} already exist. Please specify a new name.")
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": name}
        spec = _spec(body)
        self.pipelines[made["pipeline_id"]] = made
        self._add_version(made["pipeline_id"], name, spec)
        return made

    def post_pipelines_upload_version(self, query: Json, body: Any) -> Json:
        pipeline, name = query["pipelineid"], query["name"]
        _known(self.pipelines, pipeline)
        if any(v["display_name"] == name and v["pipeline_id"] == pipeline for v in self.versions.values()):
            raise Refused(409, f"The name {name} already exist.")
        return self._add_version(pipeline, name, _spec(body))

    def get_pipelines_versions(self, query: Json, body: Any, pipeline: str) -> Json:
        _known(self.pipelines, pipeline)
        return _page(
            "pipeline_versions", [v for v in self.versions.values() if v["pipeline_id"] == pipeline], query
        )

    def get_experiments(self, query: Json, body: Any) -> Json:
        return _page("experiments", list(self.experiments.values()), query)

    def post_experiments(self, query: Json, body: Json) -> Json:
        if any(one["display_name"] == body["display_name"] for one in self.experiments.values()):
            raise Refused(409, "Failed to create a new experiment: it already exists")
        return _keep(self.experiments, "experiment_id", body)

    def post_runs(self, query: Json, body: Json) -> Json:
        self._check(body, _RUN)
        return _keep(self.runs, "run_id", {**body, "state": "PENDING"})

    def get_runs(self, query: Json, body: Any, run: str) -> Json:
        found = _known(self.runs, run)
        if self.failures:
            raise Refused(self.failures.pop(0), "upstream connect error")
        found |= self.states[0]
        if len(self.states) > 1:
            self.states.pop(0)
        return found

    def post_recurringruns(self, query: Json, body: Json) -> Json:
        self._check(body, _SCHEDULE)
        cron = body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) != 6:
            raise Refused(400, f"The Cron {cron} is invalid: it must have 6 fields")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise Refused(400, "The max concurrency of the recurring run must be in [1, 10]")
        return _keep(self.recurring, "recurring_run_id", body)

    def get_recurringruns(self, query: Json, body: Any) -> Json:
        asked = query.get("experiment_id")
        found = [one for one in self.recurring.values() if asked in (None, one["experiment_id"])]
        return _page("recurringRuns", found, query)

    def delete_recurringruns(self, query: Json, body: Any, one: str) -> Json:
        _known(self.recurring, one)
        del self.recurring[one]
        return {}

    def _add_version(self, pipeline: str, name: str, spec: Json) -> Json:
        entry = {"pipeline_id": pipeline, "display_name": name, "pipeline_spec": spec}
        return _keep(self.versions, "pipeline_version_id", entry)

    def _check(self, body: Json, fields: set[str]) -> None:
        if unknown := set(body) - fields:
            raise Refused(400, f"unknown field {sorted(unknown)[0]!r}")
        _known(self.experiments, body["experiment_id"])
        reference = body["pipeline_version_reference"]
        version = _known(self.versions, reference["pipeline_version_id"])
        if version["pipeline_id"] != reference["pipeline_id"]:
            raise Refused(400, "the version is not of the pipeline")
        _check_parameters(version["pipeline_spec"], body["runtime_config"].get("parameters", {}))


def _check_parameters(spec: Json, given: Json) -> None:
    declared = spec["root"]["inputDefinitions"]["parameters"]
    for name, value in given.items():
        if name not in declared:
            raise Refused(400, f"parameter {name} is not in the pipeline's input definitions")
        kind = declared[name]["parameterType"]
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise Refused(400, f"parameter {name} = {value!r}: must be of type {kind}")
    for name, definition in declared.items():
        if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
            raise Refused(400, f"parameter {name} is required")


def _spec(upload: bytes) -> Json:
    spec = next(yaml.safe_load_all(upload))
    try:
        json_format.ParseDict(spec, PipelineSpec())
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid IR spec format: {error}") from error
    return dict(spec)


def _known(kept: dict[str, Json], one: str) -> Json:
    if one not in kept:
        raise Refused(404, f"{one} not found")
    return kept[one]


def _keep(kept: dict[str, Json], key: str, new: Json) -> Json:
    made = {**new, key: str(uuid.uuid4())}
    kept[made[key]] = made
    return made


def _page(key: str, found: list[Json], query: Json) -> Json:
    if text := query.get("filter"):
        (predicate,) = json.loads(text)["predicates"]
        assert predicate["operation"] in ("EQUALS", 1) and predicate["key"] == "display_name"
        found = [one for one in found if one["display_name"] == predicate["stringValue"]]
    start = int(query.get("page_token") or 0)
    more = {"next_page_token": str(start + PAGE)} if len(found) > start + PAGE else {}
    return {key: found[start : start + PAGE], "total_size": len(found), **more}


class _Handler(BaseHTTPRequestHandler):
    server_of: KubeflowServer

    def _answer(self) -> None:
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        parts = split.path.removeprefix(PREFIX).split("/")
        try:
            if not split.path.startswith(PREFIX):
                raise Refused(404, "Not Found")
            token = self.server_of.token
            if token is not None and self.headers["Authorization"] != f"Bearer {token}":
                raise Refused(401, "no user identity")
            names, ids = _route(parts)
            method = getattr(self.server_of, f"{self.command.lower()}_{'_'.join(names)}", None)
            if method is None:
                raise Refused(404, "Not Found")
            status, answer = 200, method(query, self._body(), *ids)
        except Refused as error:
            status, answer = error.status, {"error": str(error), "code": error.status, "message": str(error)}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def _body(self) -> Any:
        data = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind = self.headers["Content-Type"] or ""
        if kind.startswith("multipart/"):
            message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data)
            (part,) = message.get_payload()
            return part.get_payload(decode=True)
        return json.loads(data) if data and data != b"null" else None

    def log_message(self, *arguments: object) -> None:
        pass


def _route(parts: list[str]) -> tuple[list[str], list[str]]:
    """Names and ids in a path: `pipelines/<id>/versions`, `runs/<id>`, `pipelines/upload`."""
    if len(parts) == 2 and not parts[1].startswith("upload"):
        return parts[:1], parts[1:]
    return ([parts[0], parts[2]], [parts[1]]) if len(parts) == 3 else (parts, [])


@contextmanager
def kubeflow_server() -> Iterator[KubeflowServer]:
    """A server on a free port."""
    kept = KubeflowServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": kept}))
    http.daemon_threads = True
    kept.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
