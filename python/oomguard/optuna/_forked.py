"""An attached study in a forked child: the child may go on with it as if it had opened it itself.

Optuna's storages do not survive ``fork``. A journal tells its writers apart by an id that parent and child would share,
so that each takes the other's trials for its own; a database connection that two processes write to is broken for both;
a lock that another thread held stays locked for ever. What is done here in the child takes no input and no output.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from oomguard._brake import logger

_storages: weakref.WeakSet[Any] = weakref.WeakSet()


def renew_in_children(storage: BaseStorage) -> None:
    """From now on a forked child gets ``storage`` anew. Twice is once."""
    _storages.add(storage)


def _renew_all() -> None:
    for storage in list(_storages):
        try:
            _renew(storage)
        except Exception as error:
            logger().warning("a forked child cannot use its parent's %s: %s", type(storage).__name__, error)


def _renew(storage: Any) -> None:
    if isinstance(storage, JournalStorage):
        storage.__setstate__(storage.__getstate__())
    backend: Any = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        # The connections are the parent's: left open here, never said good-bye to.
        backend.engine.dispose(close=False)
        backend.scoped_session.registry.clear()
        if hasattr(storage, "_lock"):
            storage._lock = threading.Lock()


def open_anew(storage: BaseStorage) -> None:
    """In a child that works on ``storage``: what :func:`renew_in_children` leaves out, since not every child needs it.

    A gRPC proxy gets a channel of its own; the parent's is dead here. (gRPC promises nothing after ``fork``.)
    """
    channel: Any = storage
    if type(storage).__name__ == "GrpcStorageProxy" and storage in _storages:
        channel._setup()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
