"""The most memory that this process held while a trial ran: attribute ``peak_rss``, and a constraint if asked for.

Reads the kernel's high-water mark of this process (``VmHWM``) and sets it back when a trial begins. Child processes
do not count, and neither does what the guard counts beside them (shared memory that is not mapped, the kernel's own).
"""

from __future__ import annotations

import os
import threading
from typing import Any

from optuna.trial import BaseTrial, Trial

from oomguard import _core
from oomguard._brake import logger
from oomguard._state import OWN_CAUSES
from oomguard.optuna._constraint import excess
from oomguard.optuna._names import MEMORY_CONSTRAINT, PEAK, PEAK_SHARED

_lock = threading.Lock()
_running: set[Watch] = set()
_said: set[str] = set()


class Watch:
    """Over one trial, from entry to exit; the attributes are written at the exit, before Optuna ends the trial.

    A peak belongs to a process. So where trials overlap (``n_jobs > 1``) it counts from the beginning of the first of
    them, and each is marked with ``peak_rss_shared``: it is an upper bound for every one of them. No constraint is
    set then.
    """

    def __init__(self, trial: BaseTrial, constraint: int | None) -> None:
        self._trial = trial
        self._constraint = constraint
        self._shared = False
        self._unknown: str | None = None

    def __enter__(self) -> Watch:
        # First, for it may fail: from there on, what is begun is ended.
        if self._constraint is not None and isinstance(self._trial, Trial):
            storage = self._trial.study._storage
            storage.set_trial_system_attr(self._trial._trial_id, MEMORY_CONSTRAINT, self._constraint)
        with _lock:
            if _running:
                self._shared = True
                for other in _running:
                    other._shared = True
                    self._unknown = self._unknown or other._unknown
            else:
                try:
                    _core.forget_peak()
                except OSError as error:
                    self._unknown = str(error)
            _running.add(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.end(getattr(error, "cause", None) in OWN_CAUSES)

    def end(self, ran_out: bool = False) -> None:
        """Writes what there is to write; the second time nothing. Never raises.

        Args:
            ran_out: The trial's own memory ended it.
        """
        with _lock:
            if self not in _running:
                return
            peak = None if self._unknown else _core.peak_resident()
            _running.discard(self)
        if peak is None:
            _say_once(f"peak_rss is not recorded: {self._unknown or 'no `VmHWM` in /proc/self/status'}")
            return
        try:
            self._trial.set_user_attr(PEAK, peak)
            if self._shared:
                self._trial.set_user_attr(PEAK_SHARED, True)
            if self._constraint is not None:
                self._constrain(peak, self._constraint, ran_out)
        except Exception as error:  # ended by somebody else meanwhile, or the storage is down: Optuna will say so
            logger().debug("could not record peak_rss: %s", error)

    def _constrain(self, peak: int, limit: int, ran_out: bool) -> None:
        if self._shared:
            _say_once("memory_constraint is not in force with n_jobs > 1: the peak is that of several trials together")
            return
        self._trial.set_constraint(PEAK, excess(peak, limit, ran_out))


def _say_once(what: str) -> None:
    if what not in _said:
        _said.add(what)
        logger().warning("%s", what)


def _forget_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
