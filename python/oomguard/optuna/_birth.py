"""Trials are born with their owner, in the same write, so that no death can leave a trial that nobody owns.

Wraps two methods of one storage object. It never changes what they return, and never judges anything.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from oomguard import _core, _owner
from oomguard._brake import raise_stop
from oomguard._owner import Owner
from oomguard._relief import relieve
from oomguard.optuna._hostlock import alone
from oomguard.optuna._inheritance import forget_inheritance, without_inheritance
from oomguard.optuna._names import CLAIM, OWNER, RETRY_HISTORY
from oomguard.optuna._spec import GRPC, spec_of

ROOM_PATIENCE = 10.0
"""Seconds a new trial waits while the guard still asks this worker to prune: the guard either takes that back once the
memory has returned, or ends the worker 5 s (``prune_patience``) after asking. Starting sooner would prune trial after
trial."""

TAKE_PATIENCE = 10.0
"""Seconds to wait for another process that takes a trial from the same SQLite file: a write takes some milliseconds."""

_attempts = itertools.count()
_open: set[tuple[int, int]] = set()
_optimizing = 0


def busy() -> bool:
    """Whether a trial of this process is under way, or Optuna's own bookkeeping around one."""
    return bool(_open) or _optimizing > 0


class Optimizing:
    """While entered, Optuna's loop runs."""

    def __enter__(self) -> None:
        global _optimizing
        _optimizing += 1

    def __exit__(self, *_: object) -> None:
        global _optimizing
        _optimizing -= 1


def own_births(storage: BaseStorage) -> None:
    """Makes every trial that ``storage`` creates or takes from the queue carry its owner. Twice is once."""
    if not isinstance(vars(storage).get("create_new_trial"), _Create):
        vars(storage)["create_new_trial"] = _Create(storage)
        vars(storage)["set_trial_state_values"] = _SetState(storage)


class _Create:
    """``storage.create_new_trial``. A class of its own, so that a study can still be pickled."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def __call__(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        create = type(self.storage).create_new_trial
        if template_trial is not None and template_trial.state != TrialState.RUNNING:
            if template_trial.state == TrialState.WAITING:
                template_trial = without_inheritance(template_trial)
            return create(self.storage, study_id, template_trial)
        wait_for_room()
        owner = _owner.current()
        if owner is not None:
            template_trial = template_trial or optuna.trial.create_trial(state=TrialState.RUNNING)
            attrs = template_trial.system_attrs
            template_trial.system_attrs = {**attrs, OWNER: _mark(owner, attrs)}
        trial_id = create(self.storage, study_id, template_trial)
        _begin(self.storage, trial_id)
        return trial_id


class _SetState:
    """``storage.set_trial_state_values``: a trial taken from the queue gets its owner before it runs.

    The claim is written before the state, under a key of its own for each attempt: whoever dies in between, the
    claims name every process that may be running the trial. The one that loses the race takes its claim back.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def __call__(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state == TrialState.RUNNING:
            return self._take(trial_id, values)
        try:
            return type(self.storage).set_trial_state_values(self.storage, trial_id, state, values)
        finally:
            if state.is_finished():
                _end(self.storage, trial_id)

    def _take(self, trial_id: int, values: Sequence[float] | None) -> bool:
        set_state = type(self.storage).set_trial_state_values
        wait_for_room()
        owner = _owner.current()
        if owner is None:
            taken = set_state(self.storage, trial_id, TrialState.RUNNING, values)
        else:
            # Its own key for each attempt: another thread of this process may hold the trial already.
            key = f"{CLAIM}{owner.boot[:8]}-{owner.pid}-{owner.start}-{next(_attempts)}"
            try:
                mark = _mark(owner, self.storage.get_trial(trial_id).system_attrs)
                self.storage.set_trial_system_attr(trial_id, key, mark)
                with alone(self._lock_name(), TAKE_PATIENCE):
                    taken = set_state(self.storage, trial_id, TrialState.RUNNING, values)
            except RuntimeError:
                return False  # taken and finished by somebody else (UpdateFinishedTrialError from Optuna 4.5 on)
            if not taken:
                try:
                    self.storage.set_trial_system_attr(trial_id, key, None)
                except RuntimeError:
                    pass
        if taken:
            forget_inheritance(self.storage, self.storage.get_trial(trial_id))
            _begin(self.storage, trial_id)
        return taken

    def _lock_name(self) -> str | None:
        """SQLite, and it alone, lets two processes both take the same trial: it reads and writes without a lock.

        What stands behind a gRPC proxy cannot be seen from here, so it is taken for SQLite.
        """
        spec = spec_of(self.storage)
        return f"take\n{spec}" if spec is not None and spec.startswith(("sqlite", GRPC)) else None


def owners(trial: FrozenTrial) -> list[Owner]:
    """The processes one of which runs this trial; empty for a trial of an unattached worker.

    Marks that a retry inherited from the trial before it do not count: Optuna lengthens ``retry_history`` then.
    """
    attrs = trial.system_attrs
    retries = _retries(attrs)
    marks = [value for key, value in attrs.items() if key.startswith(CLAIM) and value]
    if not marks and OWNER in attrs:
        marks = [attrs[OWNER]]
    found = []
    for mark in marks:
        try:
            if mark["retries"] == retries:
                found.append(Owner(**{name: mark[name] for name in Owner._fields}))
        except (KeyError, TypeError):
            continue
    return found


def wait_for_room() -> None:
    """Before a trial begins: ends a worker that was asked to end, and lets a shortage pass.

    What the last trial left in cycles (agents, exceptions with their frames) is collected first: nothing else would do
    that while we wait.

    Raises:
        StopRequested: Before anything was written; Optuna does not catch it here.
    """
    if _core.stop_requested():
        raise_stop()
    if _core.prune_requested():
        relieve()
    deadline = time.monotonic() + ROOM_PATIENCE
    while _core.prune_requested() and time.monotonic() < deadline:
        time.sleep(0.05)
        if _core.stop_requested():
            raise_stop()


def _mark(owner: Owner, attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {**owner._asdict(), "retries": _retries(attrs)}


def _retries(attrs: Mapping[str, Any]) -> int:
    history = attrs.get(RETRY_HISTORY)
    return len(history) if isinstance(history, list) else 0


def _begin(storage: BaseStorage, trial_id: int) -> None:
    _open.add((id(storage), trial_id))
    if "NOTIFY_SOCKET" in os.environ:
        _core.notify(f"X_OOMGUARD_TRIAL={storage.get_trial(trial_id).number}")


def _end(storage: BaseStorage, trial_id: int) -> None:
    if (id(storage), trial_id) in _open:
        _open.discard((id(storage), trial_id))
        if not _open:
            _core.notify("X_OOMGUARD_TRIAL=")


def _forget_in_child() -> None:
    global _optimizing
    _open.clear()
    _optimizing = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
