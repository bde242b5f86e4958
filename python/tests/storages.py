"""The storages that the Optuna tests run on, by name."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

KINDS = ["sqlite", "journal", "journal-open", "postgres", "redis", "mysql", "grpc-sqlite", "grpc-postgres"]
SERVERS = {"postgres", "redis", "mysql"}


def spec_for(kind: str, folder: pathlib.Path, server: Callable[[str], Any]) -> str:
    """A fresh storage's text, as ``oomguard.optuna._spec`` reads it.

    ``server`` gives the server called ``postgres``, ``redis``, ``mysql`` or ``grpc``, which it starts if need be.
    """
    if kind == "sqlite":
        return f"sqlite:///{folder}/study.db"
    if kind in ("journal", "journal-open"):
        path = folder / "study.journal"
        path.touch()
        return f"{'journal' if kind == 'journal' else 'journal+open'}:{path}"
    if kind.startswith("grpc-"):
        return server("grpc").new_proxy(spec_for(kind.removeprefix("grpc-"), folder, server))
    return server(kind).new_database()


def open_fresh(spec: str) -> Any:
    """Opens it; a database or a journal is made where there is none."""
    import optuna

    from oomguard.optuna._spec import REDIS, open_storage, redis_backend

    if spec.startswith(REDIS) and "://" in spec:
        url, _, prefix = spec.removeprefix(REDIS).partition("#")
        return optuna.storages.JournalStorage(redis_backend(url, prefix=prefix))
    if spec.startswith("grpc:") or "://" not in spec:
        return open_storage(spec)
    return optuna.storages.get_storage(spec)
