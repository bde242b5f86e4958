"""Worker processes that somebody else starts: each held to a limit of its own, so that it dies alone.

    limit = oomguard.worker_init(limit="2GiB")
    with limit, ProcessPoolExecutor(4, initializer=limit) as pool: ...
    with limit: joblib.Parallel(n_jobs=4, backend="loky", initializer=limit)(...)
    with limit: [... for batch in DataLoader(..., num_workers=4, worker_init_fn=limit)]
    with limit, multiprocessing.Pool(4, initializer=limit) as pool: ...

``with`` is for the parent: an error that passes gets a hint, where a worker met its limit. Forked workers hold what
their parent held, and it counts: where that is much, use ``spawn`` or ``forkserver``.

``multiprocessing.Pool`` never returns the task of a worker that died (whatever killed it), nor one that ``check()``
ended: there wait with a timeout, ``result.get(timeout=...)``, or use ``ProcessPoolExecutor``, which says so at once.

Elsewhere call :func:`oomguard.limit_self` first thing in the worker. Ray:
``ray.init(runtime_env={"worker_process_setup_hook": lambda: oomguard.limit_self("2GiB")})``, with ``max_retries=0`` for
tasks that must not do it again. Dask: ``client.register_plugin(Limit())``, where ``class Limit(WorkerPlugin)`` has
``def setup(self, worker): oomguard.limit_self("2GiB")``.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any

import oomguard
from oomguard._brake import logger
from oomguard._errors import gb
from oomguard._limits_met import Worker, killed, read, write
from oomguard._sizes import size

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["WorkerInit", "worker_init"]


def worker_init(limit: str | int | None = None, *, parent: str | None = None) -> WorkerInit:
    """An initializer for worker processes: ``ProcessPoolExecutor(initializer=...)``, ``multiprocessing.Pool``,
    joblib's ``Parallel(backend="loky", initializer=...)``, PyTorch's ``DataLoader(worker_init_fn=...)``.

    In each worker it calls ``oomguard.limit_self(limit)``, and gives SIGTERM back its default action, which a fork of a
    trainer that handles it would not have (PyTorch's own handler stays). It limits nothing else, and no child of the
    worker separately.

    A worker that goes beyond its limit is killed by the kernel, alone, where a cgroup can be had; else its allocations
    fail, with ``MemoryError`` in Python. What the pool makes of that: ``BrokenProcessPool``, ``TerminatedWorkerError``
    (joblib), ``RuntimeError: DataLoader worker ... is killed``. :meth:`WorkerInit.explain` says what it was.

    Args:
        limit: For each worker with its children, in bytes or ``"2GiB"``; ``None``: none.
        parent: As in :func:`oomguard.limit_self`.

    Raises:
        ValueError: ``limit`` is no size. (Here, in the parent: several pools start failing workers anew for ever.)
    """
    return WorkerInit(size("limit", limit), parent)


class WorkerInit:
    """What :func:`worker_init` returns. It can be pickled, and be used for several pools.

    Its workers write what holds them to a file in the temporary folder, which goes when this object goes.
    """

    def __init__(self, limit: int | None, parent: str | None = None) -> None:
        self.limit = limit
        self.parent = parent
        try:
            descriptor, self._record = tempfile.mkstemp(prefix="oomguard-workers-")
        except OSError:  # nothing can be written here: the limits hold, and there will be no hint
            self._record = ""
            return
        os.close(descriptor)
        weakref.finalize(self, _remove, self._record, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the finalizer: the copy in a worker must not remove the file.
        return _copy, (self.limit, self.parent, self._record)

    def __repr__(self) -> str:
        return f"worker_init(limit={self.limit!r}, parent={self.parent!r})"

    def __call__(self, worker: int | None = None) -> None:
        """Runs in the worker. ``worker`` is the number that PyTorch gives.

        Raises:
            ValueError: The worker holds ``limit`` already.
            OSError: Nothing can hold it.
        """
        if worker is None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.limit is None:
            return
        # Before the leaves of dead workers go: a worker that is limited removes them.
        for pid in killed(read(self._record)):
            write(self._record, Worker(pid, "killed", None))
        held = oomguard.limit_self(self.limit, parent=self.parent)
        write(self._record, Worker(os.getpid(), held.enforcement, held.where))

    def explain(self, error: BaseException) -> str | None:
        """What ``error``, which came out of a pool, has to do with the limit of its workers; ``None``: nothing known.

        Says so only of a worker that the kernel killed at its limit, or where allocations fail at it. (With ``spawn`` a
        DataLoader may also fail with ``EOFError``: the tensors of a dead worker cannot be fetched.)
        """
        if self.limit is None:
            return None
        workers = read(self._record)
        dead = killed(workers)
        if dead and (_is_loss(error) or _may_be_loss(error)):
            who = ", ".join(map(str, dead[:5])) + (", ..." if len(dead) > 5 else "")
            return (
                f"the kernel killed {_count(len(dead))} (pid {who}) at the limit of {gb(self.limit)} each, and nothing "
                "else: raise `limit`, or give a task less to hold"
            )
        if not any(worker.enforcement == "rlimit" for worker in workers):
            return None
        if isinstance(error, MemoryError) and _is_from_a_worker(error):
            return f"its worker met its limit of {gb(self.limit)} (RLIMIT_DATA): raise `limit`, or let it hold less"
        if _is_loss(error):
            return (
                f"allocations of these workers fail at {gb(self.limit)} (RLIMIT_DATA), and native code may end its "
                "process when one does: raise `limit` if nothing else explains it"
            )
        return None

    def __enter__(self) -> WorkerInit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hint = None if error is None else self.explain(error)
        if error is None or hint is None:
            return
        logger().error("%s: hint: %s", type(error).__name__, hint)
        if sys.version_info >= (3, 11):
            error.add_note(f"hint: {hint}")


def _copy(limit: int | None, parent: str | None, record: str) -> WorkerInit:
    made = WorkerInit.__new__(WorkerInit)
    made.limit, made.parent, made._record = limit, parent, record
    return made


def _remove(record: str, owner: int) -> None:
    if os.getpid() == owner:  # not a forked worker, which has the object, too
        try:
            os.unlink(record)
        except FileNotFoundError:
            pass


def _is_loss(error: BaseException) -> bool:
    """Whether a pool or a DataLoader says that a worker was lost. Imports neither."""
    names = {kind.__name__ for kind in type(error).__mro__}
    lost = isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")
    return lost or not names.isdisjoint({"BrokenProcessPool", "TerminatedWorkerError"})


def _may_be_loss(error: BaseException) -> bool:
    """Whether it can be what the loss of a worker looks like: nobody answers, or a pipe or a file went with it."""
    return isinstance(error, (EOFError, OSError)) or type(error).__name__ == "TimeoutError"


def _is_from_a_worker(error: BaseException) -> bool:
    """Whether it was raised in another process: pools chain the traceback's text, DataLoader writes it in front."""
    chained = type(error.__cause__).__name__ in {"_RemoteTraceback", "RemoteTraceback"}
    return chained or str(error).startswith("Caught MemoryError in DataLoader worker")


def _count(number: int) -> str:
    return "a worker" if number == 1 else f"{number} workers"
