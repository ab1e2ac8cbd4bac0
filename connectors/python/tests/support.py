"""A server that says what a test wants, and what the tests share. Nothing here sleeps to wait for something."""

from __future__ import annotations

import http.server
import json
import logging
import os
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional
from unittest import mock

SOURCE = str(Path(__file__).resolve().parent.parent / "src")
sys.path.insert(0, SOURCE)

import tidewatch  # noqa: E402
from tidewatch import _process  # noqa: E402

PATIENCE_SECONDS = 30.0


class Request(NamedTuple):
    """One batch as the server saw it."""

    at: float
    path: str
    headers: Dict[str, str]
    rows: List[Dict[str, Any]]
    client_port: int


class Reply(NamedTuple):
    """What the server answers to one batch."""

    status: int = 204
    headers: Dict[str, str] = {}
    body: bytes = b""
    hang_up: bool = False  # close the connection afterwards, without a word


class Server:
    """Answers with the scripted replies, then with 204. Its port refuses connections until `listen`."""

    def __init__(self, *replies: Reply, listen: bool = True) -> None:
        self.requests: List[Request] = []
        self.gate = threading.Event()  # while it is not set, a batch waits for its answer
        self.gate.set()
        self._replies = list(replies)
        self._changed = threading.Condition()
        self._serving: Optional[threading.Thread] = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away is part of some tests

        self._listener = Listener(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._listener.server_bind()
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        if listen:
            self.listen()

    def listen(self) -> None:
        self._listener.server_activate()
        self._serving = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
        self._serving.start()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        rows = [json.loads(line) for line in body.decode().splitlines()]
        with self._changed:
            request = Request(time.monotonic(), handler.path, dict(handler.headers), rows, handler.client_address[1])
            self.requests.append(request)
            reply = self._replies.pop(0) if self._replies else Reply()
            self._changed.notify_all()
        self.gate.wait(PATIENCE_SECONDS)
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.status != 204:
            handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body)
        handler.close_connection = handler.close_connection or reply.hang_up

    def rows(self, table: str = "") -> List[Dict[str, Any]]:
        """Every row of every batch, of one table when it is named."""
        with self._changed:
            return [row for request in self.requests if request.path.endswith(table) for row in request.rows]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds; it is looked at after each batch."""
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE_SECONDS):
                raise AssertionError(f"did not come to be: {len(self.requests)} batches came")

    def stop(self) -> None:
        self.gate.set()
        if self._serving is not None:
            self._listener.shutdown()
            self._serving.join()
        self._listener.server_close()


class Told(logging.Handler):
    """What the logger "tidewatch" was told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: List[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def count(self, part: str) -> int:
        return sum(part in line for line in self.lines)

    def wait_for(self, part: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(part) > 0, PATIENCE_SECONDS):
                raise AssertionError(f"nobody said {part!r}: {self.lines}")


class Case(unittest.TestCase):
    """Each test has an environment of its own, and leaves neither a server nor a thread behind."""

    def setUp(self) -> None:
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        patched = mock.patch.dict(os.environ, environment, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        self.told = Told()
        logger = logging.getLogger("tidewatch")
        logger.addHandler(self.told)
        logger.propagate = False
        self.addCleanup(logger.removeHandler, self.told)
        self.addCleanup(self._end_client)

    def _end_client(self) -> None:
        client = _process.current()
        tidewatch.init(disabled=True)
        if client._thread is not None:
            client._thread.join(PATIENCE_SECONDS)
            self.assertFalse(client._thread.is_alive())

    def server(self, *replies: Reply, listen: bool = True) -> Server:
        server = Server(*replies, listen=listen)
        self.addCleanup(server.stop)
        return server

    def start(self, *replies: Reply, listen: bool = True, **arguments: Any) -> Server:
        """A server, and a client that speaks to it."""
        server = self.server(*replies, listen=listen)
        tidewatch.init(server.url, **{"job": "bert", "rank": 3, "host": "node-1", **arguments})
        return server

    def flush(self) -> None:
        self.assertTrue(tidewatch.flush(PATIENCE_SECONDS), tidewatch.stats())
