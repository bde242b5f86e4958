"""Putting the parameters of an ended trial back into the queue, once."""

from __future__ import annotations

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from oomguard.optuna._inheritance import system_attrs_for_queue, user_attrs_for_queue
from oomguard.optuna._names import FAILED_TRIAL, RETRY_HISTORY, RETRY_OF


def is_retry(trial: FrozenTrial) -> bool:
    """Whether ``trial`` already repeats another one."""
    return bool(trial.system_attrs.get(RETRY_HISTORY))


def is_repeated(study: Study, number: int) -> bool:
    """Whether a trial of ``study`` repeats the one with this ``number``: ours, or that of Optuna's retry callback."""
    for other in study.get_trials(deepcopy=False):
        history = other.system_attrs.get(RETRY_HISTORY)
        if other.system_attrs.get(RETRY_OF) == number or (isinstance(history, list) and history[-1:] == [number]):
            return True
    return False


def enqueue_again(study: Study, trial: FrozenTrial) -> bool:
    """Queues the parameters of ``trial`` again, unless it is a retry itself or was queued again already.

    It comes before the trial's final state is written: if the writer dies in between, the next reaper finds the
    retry and only sets the state. So there is always exactly one.

    Returns:
        Whether a retry exists now.
    """
    if is_retry(trial):
        return False
    if is_repeated(study, trial.number):
        return True
    again = {FAILED_TRIAL: trial.number, RETRY_HISTORY: [trial.number], RETRY_OF: trial.number}
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=user_attrs_for_queue(trial.user_attrs),
            system_attrs=system_attrs_for_queue({**trial.system_attrs, **again}),
        )
    )
    return True
