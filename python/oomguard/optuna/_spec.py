"""Storages as text, so that another process can open them: a database URL, or a journal's or proxy's place.

Never creates a database, a file or a journal: to reap a study that is not there is an error.
"""

from __future__ import annotations

import os
import warnings
from typing import Any
from urllib.parse import quote, unquote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from oomguard.optuna._journal import break_dead_locks

JOURNAL = "journal:"
JOURNAL_OPEN = "journal+open:"
"""A journal file whose writers use ``JournalFileOpenLock`` (the default is ``JournalFileSymlinkLock``)."""
REDIS = "journal+"
"""Before a Redis URL (``redis://``, ``rediss://``, ``unix://``); the prefix of the keys follows as ``#PREFIX``."""
REDIS_CLUSTER = "journal+cluster+"
"""The same for ``use_cluster=True``."""
GRPC = "grpc://"

PROXY_PATIENCE = 10.0
"""Seconds to wait for a gRPC proxy to answer. Optuna itself would wait for ever, or fail in the middle of a reap."""


def spec_of(storage: BaseStorage) -> str | None:
    """``storage`` as text; ``None`` for one that no other process can open (in memory) or that is not known here.

    Relative paths are made absolute. A URL keeps its password.
    """
    backend: object = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        return _absolute(str(backend.url))
    if isinstance(storage, JournalStorage):
        return _journal_spec(backend)
    if type(storage).__name__ == "GrpcStorageProxy":
        proxy: Any = storage
        return f"{GRPC}{proxy._host}:{proxy._port}"
    return None


def _journal_spec(backend: Any) -> str | None:
    path = getattr(backend, "_file_path", None)
    if path is not None:
        opens = "OpenLock" in type(getattr(backend._lock, "inner", backend._lock)).__name__
        return (JOURNAL_OPEN if opens else JOURNAL) + os.path.abspath(str(path))
    if hasattr(backend, "_redis"):
        start = REDIS_CLUSTER if backend._use_cluster else REDIS
        end = f"#{quote(backend._prefix, safe='')}" if backend._prefix else ""
        return f"{start}{backend._url}{end}"
    return None


def open_storage(spec: str) -> BaseStorage:
    """The storage that ``spec`` names.

    Raises:
        ValueError: ``spec`` is not understood, or what it names is not there.
    """
    with warnings.catch_warnings():
        # Whoever chose the storage has been told; whoever only reaps it has no choice.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _open(spec)


def _open(spec: str) -> BaseStorage:
    for prefix in (JOURNAL, JOURNAL_OPEN):
        if spec.startswith(prefix):
            return _open_journal(spec[len(prefix) :], opens=prefix == JOURNAL_OPEN)
    for prefix in (REDIS_CLUSTER, REDIS):
        if spec.startswith(prefix):
            return _open_redis(spec, spec[len(prefix) :], cluster=prefix == REDIS_CLUSTER)
    if spec.startswith(GRPC):
        return _open_proxy(spec)
    if "://" not in spec:
        raise ValueError(
            f"`{spec}` is not a storage: give a database URL (`sqlite:///study.db`, `postgresql://...`), "
            "`journal:PATH`, `journal+redis://HOST:PORT` or `grpc://HOST:PORT`"
        )
    path = _sqlite_path(spec)
    if path and not os.path.isfile(path):
        raise ValueError(f"`{spec}`: there is no file `{path}`")
    try:
        return optuna.storages.get_storage(spec)
    except Exception as error:
        raise ValueError(f"`{hide_password(spec)}` cannot be opened: {_first_line(error)}") from error


def hide_password(spec: str) -> str:
    """``spec`` for messages."""
    scheme, mark, rest = spec.partition("://")
    user, at, host = rest.rpartition("@")
    if not (mark and at and ":" in user):
        return spec
    return f"{scheme}://{user.split(':', 1)[0]}:***@{host}"


def _open_journal(path: str, opens: bool) -> BaseStorage:
    if not os.path.isfile(path):
        raise ValueError(f"`{JOURNAL}{path}`: there is no such file")
    where: Any = getattr(optuna.storages, "journal", None)
    if where is not None and hasattr(where, "JournalFileBackend"):
        backend_type, lock_type = where.JournalFileBackend, where.JournalFileOpenLock
    else:  # before Optuna 4.0
        older: Any = optuna.storages
        backend_type, lock_type = older.JournalFileStorage, older.JournalFileOpenLock
    backend = backend_type(path, lock_obj=lock_type(path) if opens else None)
    break_dead_locks(backend)
    return JournalStorage(backend)


def redis_backend(url: str, cluster: bool = False, prefix: str = "") -> Any:
    """Optuna's journal backend on Redis, under the name that it has in this version. Connects when it is used."""
    where: Any = getattr(optuna.storages, "journal", None)
    backend_type = getattr(where, "JournalRedisBackend", None) or getattr(optuna.storages, "JournalRedisStorage", None)
    assert backend_type is not None  # from 3.1 on
    return backend_type(url, use_cluster=cluster, prefix=prefix)


def _open_redis(spec: str, rest: str, cluster: bool) -> BaseStorage:
    url, _, prefix = rest.partition("#")
    try:
        backend = redis_backend(url, cluster, unquote(prefix))
        there = backend._redis.exists(f"{unquote(prefix)}:log_number")
    except Exception as error:
        raise ValueError(f"`{hide_password(spec)}` cannot be opened: {_first_line(error)}") from error
    if not there:
        raise ValueError(f"`{hide_password(spec)}`: there is no journal with the prefix `{unquote(prefix)}`")
    return JournalStorage(backend)


def _open_proxy(spec: str) -> BaseStorage:
    host, _, port = spec[len(GRPC) :].rpartition(":")
    proxy: Any = getattr(optuna.storages, "GrpcStorageProxy", None)
    if proxy is None:
        raise ValueError(f"`{spec}`: this Optuna ({optuna.__version__}) has no gRPC proxy (4.2 has)")
    if not host or not port.isdigit():
        raise ValueError(f"`{spec}` names no host and port: write `grpc://HOST:PORT`")
    opened: Any = proxy(host=host, port=int(port))
    try:
        opened.wait_server_ready(timeout=PROXY_PATIENCE)
    except ConnectionError as error:
        raise ValueError(f"`{spec}`: no proxy answers there (waited {PROXY_PATIENCE:g} s)") from error
    storage: BaseStorage = opened
    return storage


def _absolute(url: str) -> str | None:
    if not url.startswith("sqlite"):
        return url
    path = _sqlite_path(url)
    if path is None or path.startswith("file:") or ":memory:" in path or not path:
        return None
    head, _, query = url.partition("?")
    scheme = head.split("://", 1)[0]
    return f"{scheme}:///{os.path.abspath(path)}" + (f"?{query}" if query else "")


def _sqlite_path(url: str) -> str | None:
    """The file of an SQLite URL (``sqlite:///relative``, ``sqlite:////absolute``), empty for memory."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.split("+")[0] != "sqlite":
        return None
    return rest.partition("?")[0][1:]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
