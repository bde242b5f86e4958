"""What a trial that repeats another one must not carry over from it.

Optuna's retry callback copies every attribute, so that a retry which completes would still say that it was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from oomguard.optuna._names import CONSTRAINTS, KILLED, OF_ONE_RUN, PREFIX, RETRY_HISTORY, RETRY_OF, RUNGS


def without_inheritance(template: FrozenTrial) -> FrozenTrial:
    """Strips ``template``, a trial about to be queued, of who owned the one it repeats and how that one ended.

    Values of constraints, and the rungs of a pruner where the reports that led there are not copied, stay behind too,
    if it is a repetition: the pruner would compare the first report of the new run with the last of the others.
    """
    template.system_attrs = system_attrs_for_queue(template.system_attrs, bool(template.intermediate_values))
    template.user_attrs = user_attrs_for_queue(template.user_attrs)
    return template


def user_attrs_for_queue(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """``attrs`` without what describes one run."""
    return {key: value for key, value in attrs.items() if key not in OF_ONE_RUN}


def system_attrs_for_queue(attrs: Mapping[str, Any], with_reports: bool = False) -> dict[str, Any]:
    """``attrs`` without owner, and, for a repetition, without what its own run will find out again."""
    kept = {key: value for key, value in attrs.items() if not key.startswith(PREFIX) or key == RETRY_OF}
    if kept.get(RETRY_HISTORY):
        found_out = (CONSTRAINTS,) if with_reports else (CONSTRAINTS, RUNGS)
        kept = {key: value for key, value in kept.items() if not key.startswith(found_out)}
    return kept


def forget_inheritance(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Resets on ``trial``, just taken from the queue, what a process without oomguard copied. Mostly writes nothing.

    Optuna cannot remove an attribute: ``emergency_killed`` becomes ``False``, others ``None``.
    """
    for key in OF_ONE_RUN:
        if trial.user_attrs.get(key):
            storage.set_trial_user_attr(trial._trial_id, key, False if key == KILLED else None)
