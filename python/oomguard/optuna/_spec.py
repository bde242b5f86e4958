"""Storages as text, so that another process can open them: a database URL, or ``journal:PATH``.

Never creates a database or a file: to reap a study that is not there is an error.
"""

from __future__ import annotations

import os
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from oomguard.optuna._journal import break_dead_locks

JOURNAL = "journal:"
JOURNAL_OPEN = "journal+open:"
"""A journal file whose writers use ``JournalFileOpenLock`` (the default is ``JournalFileSymlinkLock``)."""
GRPC = "grpc://"
SQLITE = "sqlite:///"


def spec_of(storage: BaseStorage) -> str | None:
    """``storage`` as text; ``None`` for one that no other process can open (in memory) or that is not known here.

    Relative paths are made absolute. A URL keeps its password.
    """
    backend: object = getattr(storage, "_backend", storage)
    inner: Any = backend
    if isinstance(backend, RDBStorage):
        return _absolute(str(backend.url))
    if isinstance(storage, JournalStorage):
        path = getattr(inner, "_file_path", None)
        if path is None:
            return None
        opens = "OpenLock" in type(getattr(inner._lock, "inner", inner._lock)).__name__
        return (JOURNAL_OPEN if opens else JOURNAL) + os.path.abspath(str(path))
    if type(storage).__name__ == "GrpcStorageProxy":
        proxy: Any = storage
        return f"{GRPC}{proxy._host}:{proxy._port}"
    return None


def open_storage(spec: str) -> BaseStorage:
    """The storage that ``spec`` names.

    Raises:
        ValueError: ``spec`` is not understood, or what it names is not there.
    """
    for prefix in (JOURNAL, JOURNAL_OPEN):
        if spec.startswith(prefix):
            return _open_journal(spec[len(prefix) :], opens=prefix == JOURNAL_OPEN)
    if spec.startswith(GRPC):
        host, _, port = spec[len(GRPC) :].rpartition(":")
        proxy: Any = getattr(optuna.storages, "GrpcStorageProxy", None)
        if proxy is None:
            raise ValueError(f"`{spec}`: this Optuna ({optuna.__version__}) has no gRPC proxy (4.2 has)")
        if not host or not port.isdigit():
            raise ValueError(f"`{spec}` names no host and port: write `grpc://HOST:PORT`")
        opened: BaseStorage = proxy(host=host, port=int(port))
        return opened
    if "://" not in spec:
        raise ValueError(
            f"`{spec}` is not a storage: give a database URL (`sqlite:///study.db`, `postgresql://...`), "
            "`journal:PATH` or `grpc://HOST:PORT`"
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
