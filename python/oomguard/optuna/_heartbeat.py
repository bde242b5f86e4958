"""Optuna's heartbeat and our reaper on the same study: the reaper goes first, and a trial is queued again once.

Optuna's heartbeat (``RDBStorage(heartbeat_interval=...)``) fails a stale trial when another worker asks for its next
one, whatever its own died of. It still judges what we cannot: workers of other hosts, and those that only hang.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from oomguard._brake import logger
from oomguard.optuna._hostlock import alone
from oomguard.optuna._reap import LOCK_PATIENCE, lock_name, reap
from oomguard.optuna._retry import is_repeated

_GETTERS = ("get_heartbeat_stale_trial_callback", "get_failed_trial_callback")
"""Names of the same method, from Optuna 4.9 on and before."""


def go_first(storage: BaseStorage) -> None:
    """Wraps the heartbeat of ``storage``, if it has one. Twice is once."""
    heartbeat: Any = storage
    interval = getattr(heartbeat, "get_heartbeat_interval", None)
    if interval is None or interval() is None or "_get_stale_trial_ids" in vars(storage):
        return
    vars(storage)["_get_stale_trial_ids"] = _Stale(storage)
    for name in _GETTERS:
        if hasattr(type(storage), name):
            vars(storage)[name] = functools.partial(_once, storage, name)


class _Stale:
    """``storage._get_stale_trial_ids``, after the trials of workers that are dead for certain have been reaped."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    def __call__(self, study_id: int) -> list[int]:
        try:
            reap(self.storage, self.storage.get_study_name_from_id(study_id))
        except Exception as error:
            logger().warning("could not reap before Optuna's heartbeat did: %s", error)
        stale: Any = self.storage
        found: list[int] = type(stale)._get_stale_trial_ids(stale, study_id)
        return found


def _once(storage: BaseStorage, name: str) -> Callable[[Study, FrozenTrial], None] | None:
    callback = getattr(type(storage), name)(storage)
    return None if callback is None else _Once(callback)


class _Once:
    """Optuna's retry callback, unless the trial was queued again already."""

    def __init__(self, callback: Callable[[Study, FrozenTrial], None]) -> None:
        self.callback = callback

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        with alone(lock_name(study), LOCK_PATIENCE):
            if not is_repeated(study, trial.number):
                self.callback(study, trial)
