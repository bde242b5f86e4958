"""One line for a worker: ``study = oomguard.optuna.attach(optuna.load_study(...))``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from typing import Any

from optuna.study import Study

from oomguard import _core, _owner, _signals
from oomguard._brake import logger, raise_stop
from oomguard._state import Study as Registered
from oomguard._state import register
from oomguard.optuna import _birth
from oomguard.optuna._constraint import constraint_bytes
from oomguard.optuna._forked import open_anew, renew_in_children
from oomguard.optuna._heartbeat import go_first
from oomguard.optuna._journal import break_dead_locks
from oomguard.optuna._objective import StopCallback, objective
from oomguard.optuna._reap import reap
from oomguard.optuna._spec import spec_of
from oomguard.optuna._wakeup import Wakeup

_registered: set[tuple[int, str, str]] = set()


def attach(study: Study, *, memory_constraint: int | str | None = None, interrupt: bool | None = None) -> Study:
    """Makes ``study`` lose no trial, whatever ends this process, and returns it.

    From here on:

    - every trial is born with its owner (host, boot, pid, start time) in the write that creates it;
    - the trials that dead workers of this host left RUNNING get their final state (:func:`reap`);
    - ``study.optimize`` guards its objective (:func:`objective`), and ends after the present trial once the process
      was asked to end: by SIGTERM, or by the guard's page. It then raises ``StopRequested``, a ``SystemExit``: the
      process exits 0 unless that is caught;
    - under ``oomguard up`` the study is registered, so that ``up`` reaps it once more at its own end.

    Call it in each worker, from the main thread (elsewhere SIGTERM cannot be handled; that is logged). A child process
    that was forked, or to which the study was pickled, may go on with it: its ``optimize`` attaches by itself. (Behind
    a gRPC proxy a forked child had better open the study itself: gRPC promises nothing after ``fork``.) Calling it
    again changes nothing but ``memory_constraint`` and ``interrupt``.

    Args:
        study: A study in any storage.
        memory_constraint: See :func:`objective`. ``None`` leaves it as it is.
        interrupt: The same.

    Raises:
        TypeError: ``study`` is not an ``optuna.Study``, or ``memory_constraint`` is no size.
        ValueError: The same for a text; or this Optuna has no constraints of a trial (before 5.0).
    """
    if not isinstance(study, Study):
        raise TypeError(f"attach() takes an optuna.Study, not {study!r}")
    limit = constraint_bytes(memory_constraint)
    optimize = vars(study).get("optimize")
    if not isinstance(optimize, _Optimize):
        optimize = vars(study)["optimize"] = _Optimize(study)
    if limit is not None:
        optimize.memory_constraint = limit
    if interrupt is not None:
        optimize.interrupt = interrupt
    _arm(study)
    return study


def _arm(study: Study) -> None:
    """What every process needs that works on the study."""
    break_dead_locks(getattr(study._storage, "_backend", None))
    _birth.own_births(study._storage)
    go_first(study._storage)
    renew_in_children(study._storage)
    _signals.busy_while(_birth.busy)
    if not _signals.handle_sigterm():
        logger().warning("attach(): not in the main thread, or SIGTERM is ignored: SIGTERM is not handled here")
    _register(study)
    if _owner.current() is None:
        logger().warning("attach(): trials cannot carry their owner: %s", _owner.why_unknown())
    else:
        try:
            reap(study)
        except Exception as error:
            logger().warning("attach(): could not reap `%s`: %s", study.study_name, error)
    _core.notify("READY=1")


class _Optimize:
    """``study.optimize`` of an attached study. A class, so that the study can still be pickled."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.memory_constraint: int | None = None
        self.interrupt = False
        self.pid = os.getpid()
        functools.update_wrapper(self, type(study).optimize)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if self.pid != os.getpid():
            self.pid = os.getpid()
            open_anew(self.study._storage)
            _arm(self.study)
        optimize = type(self.study).optimize
        bound = inspect.signature(optimize).bind(self.study, *args, **kwargs)
        bound.arguments["func"] = objective(
            bound.arguments["func"], memory_constraint=self.memory_constraint, interrupt=self.interrupt
        )
        bound.arguments["callbacks"] = [*(bound.arguments.get("callbacks") or ()), StopCallback()]
        threads = bound.arguments.get("n_jobs", 1) != 1
        with _birth.Optimizing(), Wakeup() if threads else contextlib.nullcontext():
            optimize(*bound.args, **bound.kwargs)
        if _core.stop_requested():
            raise_stop()


def _register(study: Study) -> None:
    state = os.environ.get("OOMGUARD_STATE")
    spec = spec_of(study._storage)
    if not state or spec is None:
        return
    key = (os.getpid(), spec, study.study_name)
    if key in _registered:
        return
    try:
        register(state, Registered(sys.executable, spec, study.study_name, os.getcwd()))
        _registered.add(key)
    except OSError as error:
        logger().warning("attach(): could not register `%s` with the guard: %s", study.study_name, error)
