"""Putting the parameters of an ended trial back into the queue, once."""

from __future__ import annotations

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from oomguard.optuna._names import FAILED_TRIAL, KILL_ATTRS, PREFIX, RETRY_HISTORY, RETRY_OF


def is_retry(trial: FrozenTrial) -> bool:
    """Whether ``trial`` already repeats another one."""
    return bool(trial.system_attrs.get(RETRY_HISTORY))


def enqueue_again(study: Study, trial: FrozenTrial) -> bool:
    """Queues the parameters of ``trial`` again, unless it is a retry itself or was queued again already.

    It comes before the trial's final state is written: if the writer dies in between, the next reaper finds the
    retry and only sets the state. So there is always exactly one.

    Returns:
        Whether a retry exists now.
    """
    if is_retry(trial):
        return False
    trials = study.get_trials(deepcopy=False)
    if any(other.system_attrs.get(RETRY_OF) == trial.number for other in trials):
        return True
    system = {key: value for key, value in trial.system_attrs.items() if not key.startswith(PREFIX)}
    system[FAILED_TRIAL] = trial.number
    system[RETRY_HISTORY] = [trial.number]
    system[RETRY_OF] = trial.number
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: value for key, value in trial.user_attrs.items() if key not in KILL_ATTRS},
            system_attrs=system,
        )
    )
    return True
