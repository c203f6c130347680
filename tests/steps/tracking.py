"""A tracking server as a group shares it: `mlflow server` in front of PostgreSQL, which keeps the artifacts as well."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.helpers import free_port, wait_for

_DEBIAN = Path("/usr/lib/postgresql")  # has a folder for each version, none of them on PATH


@dataclass(frozen=True)
class Postgres:
    """A database server with a folder of its own.

    Attributes:
        programs: folder of initdb and pg_ctl.
        folder: with its data and its log.
        port: on which it listens, on this machine alone.
    """

    programs: Path
    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        self._run("initdb", "--username", "mlflow", "--auth", "trust", "--encoding", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "--log", str(self.folder / "postgres.log"), "--wait", "--options", options, "start")

    def stop(self) -> None:
        """End it with all its connections, as an administrator does."""
        self._run("pg_ctl", "--mode", "fast", "--wait", "stop")

    def _run(self, program: str, *words: str) -> None:
        command = [str(self.programs / program), "--pgdata", str(self.folder / "data"), *words]
        with (self.folder / "programs.log").open("ab") as log:
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=False, timeout=90, **_user())
        assert done.returncode == 0, (self.folder / "programs.log").read_text()


@dataclass(frozen=True)
class Tracking:
    """A running tracking server, and its database."""

    uri: str
    database: Postgres


@contextmanager
def running(folder: Path) -> Iterator[Tracking]:
    """A tracking server with its artifacts in `folder`; skips where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    programs = [Path(found).resolve().parent] if found else sorted(_DEBIAN.glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL; it is in Debian's package postgresql")
    with _database(programs[-1]) as database:
        port = free_port()
        command = [str(Path(sys.executable).parent / "mlflow"), "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", database.uri, "--serve-artifacts", "--artifacts-destination", str(folder)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # of use for language models alone
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            uri = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(uri, process, folder / "server.log"), 180)
            yield Tracking(uri, database)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def _database(programs: Path) -> Iterator[Postgres]:
    """A running PostgreSQL. Its folder is not below pytest's, which no other user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="cxr-postgres-"))
    database = Postgres(programs, folder, free_port())
    if user := _user():
        os.chown(folder, pwd.getpwnam(user["user"]).pw_uid, user["group"])
    try:
        database.make()
        database.start()
        try:
            yield database
        finally:
            database.stop()
    finally:
        shutil.rmtree(folder)


def _user() -> dict[str, Any]:
    """Arguments of `subprocess` for another user than root, whom PostgreSQL refuses."""
    if os.geteuid():
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_name, "group": entry.pw_gid, "extra_groups": []}


def _answers(uri: str, process: subprocess.Popen, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return requests.get(f"{uri}/health", timeout=5).ok
    except requests.RequestException:
        return False
