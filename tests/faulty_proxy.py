"""An HTTP proxy in front of an S3 server that fails as real networks and servers do."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Action = Literal[
    "500", "501", "503", "reset", "lost answer", "broken body", "slow", "slow body", "short object",
    "unconditional",
]  # fmt: skip


@dataclass
class Fault:
    """What happens to the next `times` requests with `method` to a path that `path` matches."""

    action: Action
    method: str = "GET"
    path: str = ""
    times: int = 1_000_000
    seconds: float = 5.0
    hits: int = 0


class FaultyProxy:
    """Hands requests on to `upstream`, less what `faults` say. `url` is the endpoint for clients."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        """`METHOD path` of all, in their order."""
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, action: Action, **options: object) -> Fault:
        """Begin with a fault."""
        fault = Fault(action, **options)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.method == method and fault.hits < fault.times and re.search(fault.path, path):
                    fault.hits += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # the client has gone
            self.close_connection = True

    def _handle(self) -> None:
        body = self._body()
        fault = self.owner.fault_for(self.command, self.path)
        action = fault.action if fault is not None else None
        if fault is not None and action in ("500", "501", "503"):
            self._answer(int(action or 500), [("Content-Type", "application/xml")], _error_xml(str(action)))
        elif action == "reset":
            self._reset()
        else:
            if fault is not None and action == "slow":
                time.sleep(fault.seconds)
            self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        upstream = self.owner.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        skipped = {"connection", "transfer-encoding", "content-length", "expect"}
        lost = {"if-none-match"} if fault is not None and fault.action == "unconditional" else set()
        headers = {n: value for n, value in self.headers.items() if n.lower() not in skipped | lost}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body=body or None, headers=headers)
        response = connection.getresponse()
        data = response.read()
        answer = [(n, v) for n, v in response.getheaders() if n.lower() not in skipped - {"content-length"}]
        connection.close()
        action = fault.action if fault is not None else None
        if action == "lost answer":
            self._reset()
        elif action == "short object":
            self._answer(response.status, answer, data[: len(data) // 2])
        elif fault is not None and action in ("broken body", "slow body"):
            self._answer(response.status, answer, data[: len(data) // 2], length=len(data))
            if action == "slow body":
                time.sleep(fault.seconds)
            self._reset()
        else:
            length = int(response.headers.get("Content-Length", len(data)))  # of HEAD: without a body
            self._answer(response.status, answer, data, length=length)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, length: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _reset(self) -> None:
        """End the connection by a reset, not in order."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.rfile.close()
        self.connection.close()


def _error_xml(status: str) -> bytes:
    code = {"500": "InternalError", "501": "NotImplemented", "503": "SlowDown"}[status]
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as ordered</Message></Error>".encode()
