"""Real servers on loopback, as a cluster has them: an object store, PostgreSQL, MLflow. Each ends with its block."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))  # where Debian's package has it
PASSWORD = "not-a-secret-but-told-to-nobody"
_READY_WITHIN_S = 120.0


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that listens on a port of its own, which can be ended and started again."""

    def __init__(self, command, port, log, *, path=None, ending=signal.SIGTERM, **environment):
        """``path`` is what an HTTP server answers once it is ready; others are ready when they take a connection."""
        self.port = port
        self._command, self._log, self._path, self._ending = command, log, path, ending
        self._environment = {**os.environ, **environment}
        self._process = None

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd="/", env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()  # noqa: PT018
            time.sleep(0.2)

    def stop(self):
        if self._process is not None:
            os.killpg(self._process.pid, self._ending)
            self._process.wait(timeout=60)
            self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    def _answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self._path is None:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", self._path)
            return connection.getresponse().status == 200
        return False


def object_store(folder):
    """An S3 server; what it holds is gone when it ends."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return Server(command, port, folder / "s3.log", path="/moto-api/")


def s3_environment(server):
    """What clients of the server are told: s3fs, Tune's pyarrow and boto3 alike."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip


@contextlib.contextmanager
def postgres():
    """The address of an empty PostgreSQL database, which asks for its password."""
    programs, port = POSTGRES[-1].parent, free_port()
    # Its server refuses to run as root; and pytest's folders are closed to others.
    others = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="quarterturn-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if others:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        data = folder / "data"
        initdb = [programs / "initdb", "--pgdata", data, "--username=mlflow", f"--pwfile={folder / 'password'}"]
        subprocess.run(
            [*others, *initdb, "--auth=scram-sha-256", "--no-sync"], cwd="/", check=True, stdout=subprocess.DEVNULL
        )
        serve = [POSTGRES[-1], "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        serve += ["-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        # SIGINT ends it without waiting for its clients.
        with Server([*others, *serve], port, folder / "log", ending=signal.SIGINT):
            yield f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder)


def mlflow_server(database_uri, folder):
    """An MLflow server on this database."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    # The address holds a password: the process list does not show the environment.
    settings = {"MLFLOW_BACKEND_STORE_URI": database_uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Server(command, port, folder / "mlflow.log", path="/health", **settings)
