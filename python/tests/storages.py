"""The storages that the Optuna tests run on, by name."""

from __future__ import annotations

import os
import pathlib
import pwd
import secrets
import shutil
import subprocess
import tempfile
from typing import Any

import pytest

KINDS = ["sqlite", "journal", "journal-open", "postgres"]


def spec_for(kind: str, folder: pathlib.Path, server: Any) -> str:
    """A fresh storage's text, as ``oomguard.optuna._spec`` reads it. Its file exists afterwards."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/study.db"
    if kind in ("journal", "journal-open"):
        path = folder / "study.journal"
        path.touch()
        return f"{'journal' if kind == 'journal' else 'journal+open'}:{path}"
    return server.new_database()


def open_fresh(spec: str) -> Any:
    """Opens it; a database is created where there is none."""
    import optuna

    from oomguard.optuna._spec import open_storage

    return optuna.storages.get_storage(spec) if "://" in spec else open_storage(spec)


class Postgres:
    """A private PostgreSQL cluster in a temporary directory, reached by a Unix socket only."""

    def __init__(self, programs: pathlib.Path) -> None:
        self._programs = programs
        self._as = []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="oomguard-pg-"))
        if os.geteuid() == 0:
            user = next(name for name in ("postgres", "nobody") if _exists(name))
            os.chown(self.folder, pwd.getpwnam(user).pw_uid, -1)
            self._as = ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups", "--"]
        self._call("initdb", "-D", f"{self.folder}/data", "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB -c max_connections=40"
        self._call("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, str(self._programs / program), *arguments],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")

    def new_database(self) -> str:
        name = f"t{secrets.token_hex(6)}"
        self._call("createdb", "-h", str(self.folder), "-U", "test", name)
        return f"postgresql+psycopg2://test@/{name}?host={self.folder}"

    def stop(self) -> None:
        self._call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def start_postgres() -> Postgres:
    """Starts one, or skips aloud; fails instead where ``OOMGUARD_REQUIRE`` names ``postgres``."""
    why = ""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path and not found:
        found = [pathlib.Path(on_path).resolve()]
    if not found:
        why = "no initdb: neither on PATH nor in /usr/lib/postgresql/*/bin"
    else:
        try:
            import psycopg2  # noqa: F401

            return Postgres(found[-1].parent)
        except (ImportError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
    if "postgres" in os.environ.get("OOMGUARD_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"OOMGUARD_REQUIRE names postgres: {why}")
    pytest.skip(f"no PostgreSQL server: {why}")
