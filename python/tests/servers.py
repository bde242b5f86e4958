"""Real servers for the tests: private, in a temporary directory, ended with the test run.

Each is started by the first test that needs it. Where it cannot be, its tests are skipped and say why; they fail
instead where ``OOMGUARD_REQUIRE`` (words with commas between) names it.
"""

from __future__ import annotations

import os
import pathlib
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from typing import Any

from absence import absent
from conftest import clean_env, wait_until

START = 60.0
"""Seconds that a server may take to start."""


def start(name: str) -> Any:
    """Starts ``postgres``, ``redis``, ``mysql`` or ``grpc``; skips or fails the test where that cannot be."""
    try:
        return {"postgres": Postgres, "redis": Redis, "mysql": MariaDB, "grpc": Proxies}[name]()
    except (ImportError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        absent(name, str(error))


class _Server:
    """A folder of its own, and the user that may own it: the servers refuse to be root."""

    def __init__(self, *users: str) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="oomguard-test-"))
        self._as: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if users and os.geteuid() == 0:
            user = next(name for name in (*users, "nobody") if _exists(name))
            os.chown(self.folder, pwd.getpwnam(user).pw_uid, -1)
            self._as = ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups", "--"]

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, program, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, timeout=START, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{pathlib.Path(program).name}: {done.stderr.strip()[-500:]}")

    def _serve(self, *command: str) -> None:
        with open(self.folder / "log", "wb") as log:
            # It is not to outlive a test run that is killed.
            mortal = [*(self._as[:-1] or ["setpriv"]), "--pdeathsig", "KILL", "--"]
            self._process = subprocess.Popen([*mortal, *command], cwd=self.folder, stdout=log, stderr=log)

    def _wait_for(self, path: str) -> None:
        """Until the server listens on the Unix socket ``path``."""
        assert self._process is not None

        def listens() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-500:])
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(path) == 0

        wait_until(listens, f"a server on {path}", START)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(_Server):
    """PostgreSQL."""

    def __init__(self) -> None:
        import psycopg2

        self._programs = str(pathlib.Path(_program("initdb", "/usr/lib/postgresql/*/bin/initdb")).resolve().parent)
        super().__init__("postgres")
        self._call(f"{self._programs}/initdb", "-D", f"{self.folder}/data", "-U", "test", "-A", "trust", "--no-sync",
                   "-E", "UTF8")  # fmt: skip
        self._serve(
            f"{self._programs}/postgres", "-D", f"{self.folder}/data", "-k", str(self.folder),
            *("-c", "listen_addresses="), *("-c", "fsync=off"), *("-c", "shared_buffers=16MB"),
            *("-c", "max_connections=300"),
        )  # fmt: skip
        self._wait_for(f"{self.folder}/.s.PGSQL.5432")

        def answers() -> bool:
            try:
                psycopg2.connect(host=str(self.folder), user="test", dbname="postgres").close()
            except psycopg2.OperationalError:  # it listens before it is ready
                return False
            return True

        wait_until(answers, "PostgreSQL ready", START)

    def new_database(self) -> str:
        name = f"t{secrets.token_hex(6)}"
        self._call(f"{self._programs}/createdb", "-h", str(self.folder), "-U", "test", name)
        return f"postgresql+psycopg2://test@/{name}?host={self.folder}"

    def stop(self) -> None:
        # Its children hold shared memory: this ends them too.
        self._call(f"{self._programs}/pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")
        super().stop()


class MariaDB(_Server):
    """MariaDB, for Optuna's MySQL dialect."""

    def __init__(self) -> None:
        import pymysql  # noqa: F401

        server = _program("mariadbd", "/usr/sbin/mariadbd", "/usr/sbin/mysqld")
        super().__init__("mysql")
        self._socket = f"{self.folder}/socket"
        self._call(_program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder}/data",
                   "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        self._serve(
            server, "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self._socket}", "--skip-networking",
            f"--pid-file={self.folder}/pid", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
        )  # fmt: skip
        self._wait_for(self._socket)

    def new_database(self) -> str:
        import pymysql

        name = f"t{secrets.token_hex(6)}"
        connection = pymysql.connect(unix_socket=self._socket, user="root")
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self._socket}"


class Redis(_Server):
    """Redis on a Unix socket; a journal is a prefix."""

    def __init__(self) -> None:
        import redis  # noqa: F401

        server = _program("redis-server")
        super().__init__()
        self._socket = f"{self.folder}/socket"
        self._serve(server, "--port", "0", "--unixsocket", self._socket, "--save", "", "--dir", str(self.folder))
        self._wait_for(self._socket)

    def new_database(self) -> str:
        return f"journal+unix://{self._socket}#t{secrets.token_hex(6)}"


class Proxies(_Server):
    """Optuna's gRPC proxies, all in one process of their own: a line with a storage in, a line with a port out."""

    CODE = """
import sys, threading, optuna
from storages import open_fresh
from optuna.storages import run_grpc_proxy_server
optuna.logging.set_verbosity(optuna.logging.ERROR)
for line in sys.stdin:
    spec, port = line.split()
    serve = {"host": "localhost", "port": int(port)}
    threading.Thread(target=run_grpc_proxy_server, args=(open_fresh(spec),), kwargs=serve, daemon=True).start()
    print(port, flush=True)
"""

    def __init__(self) -> None:
        import grpc  # noqa: F401
        import optuna

        if not hasattr(optuna.storages, "GrpcStorageProxy"):
            raise RuntimeError(f"Optuna {optuna.__version__} has no gRPC proxy (4.2 has)")
        super().__init__()
        env = clean_env(PYTHONPATH=str(pathlib.Path(__file__).parent), PYTHONWARNINGS="ignore")
        with open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self.CODE], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def new_proxy(self, spec: str) -> str:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self._process.stdin.write(f"{spec} {port}\n".encode())
        self._process.stdin.flush()
        if self._process.stdout.readline() != f"{port}\n".encode():
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-500:])
        return f"grpc://localhost:{port}"


def _program(name: str, *elsewhere: str) -> str:
    found = shutil.which(name)
    for pattern in elsewhere:
        found = found or next(iter(sorted(map(str, pathlib.Path("/").glob(pattern[1:])), reverse=True)), None)
    if found is None:
        raise RuntimeError(f"no program `{name}` on PATH" + "".join(f", nor {pattern}" for pattern in elsewhere))
    return found


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
