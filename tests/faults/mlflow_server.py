"""An MLflow server, and a proxy before it that answers as servers in trouble do."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_STARTS_WITHIN_S = 180.0
_HOP = {"host", "connection", "transfer-encoding", "content-length", "server", "date"}


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a server of this machine, or does as ``mode`` says."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_at = ("127.0.0.1", port)
        self.mode = "pass"
        """Or "refuse" (as if nobody listened), "hang", or "commit and 503": what is asked is done, and not said."""

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, address: object) -> None:
        """A client that went away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _serve(self) -> None:
        mode = self.server.mode
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if mode == "refuse":
            self.close_connection = True
            return
        while self.server.mode == "hang":
            time.sleep(0.1)
        connection = http.client.HTTPConnection(*self.server.server_at)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if mode == "commit and 503":
            self.send_error(503)
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def log_message(self, *said: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def mlflow_behind_proxy(folder: Path) -> Iterator[Proxy]:
    """A server with its database in a folder, and the proxy that leads to it."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "files")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    proxy = Proxy(port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        _wait_until_it_answers(port, server, folder / "server.log")
        yield proxy
    finally:
        proxy.mode = "refuse"
        proxy.shutdown()
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def _wait_until_it_answers(port: int, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
