"""After a death: gives the RUNNING trials of dead owners their three attributes and a final state.

It only writes to trials that are RUNNING and whose owner is certainly dead; it judges no process of another host.
Doing it twice, or in two processes at once, is the same as doing it once.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from oomguard import _core, _owner
from oomguard._brake import logger
from oomguard._monitor import GIB
from oomguard._owner import Owner
from oomguard._state import MEMORY_CAUSES, Death, Deaths
from oomguard.optuna._birth import owners
from oomguard.optuna._constraint import CONSTRAINT_KEY, excess
from oomguard.optuna._hostlock import alone
from oomguard.optuna._names import AVAILABLE, CAUSE, KILLED, MEMORY_CONSTRAINT, OOM_CAUSE, REASON
from oomguard.optuna._retry import enqueue_again, is_retry
from oomguard.optuna._spec import open_storage, spec_of

LOCK_PATIENCE = 30.0
"""Seconds to wait for another reaper of the same study on this host; a reap of a hundred trials takes 2 s. After that
it goes on beside it: the worst is a parameter set that is queued twice."""

NO_RETRY = frozenset({"crash", "finished"})
"""Ended by itself: the same parameters would end it again."""


class Reaped(NamedTuple):
    """One trial that was given its final state."""

    study: str
    number: int
    state: str
    cause: str
    """The guard's word, or ``reboot`` (the machine was restarted) or ``unknown`` (nobody recorded the death)."""
    retried: bool
    """Its parameters wait in the queue again."""
    pid: int
    host: str


def reap(
    study_or_storage: Study | BaseStorage | str,
    study_name: str | None = None,
    *,
    state: str | None = None,
    dead_hosts: Collection[str] = (),
) -> list[Reaped]:
    """Ends the RUNNING trials whose worker is dead.

    | how the worker died | state | queued again |
    | --- | --- | --- |
    | its own memory (``limit``, ``leak``) | PRUNED | no: a sampler that hears FAIL walks back there |
    | a neighbour or the calendar (``reserve``, ``vram``, ``age``, ``requested``, ``timeout``) | FAIL | once |
    | by itself (``crash``, ``finished``) | FAIL | no |
    | nobody recorded it (SIGKILL by a stranger, the kernel's OOM killer, a reboot) | FAIL | once |
    | the same, and it already was a retry | PRUNED | no: the second such death with the same parameters |

    Every one of them gets ``emergency_killed``, ``kill_reason`` and ``available_gb_at_kill``.

    Args:
        study_or_storage: A study; or a storage, or its text (a database URL, ``journal:PATH``), of which every study
            or the one called ``study_name`` is reaped.
        study_name: See above.
        state: The guard's state directory, with the record of deaths. Default: ``$OOMGUARD_STATE``.
        dead_hosts: Names of hosts that the caller knows to be gone: their trials are reaped as well. Without this
            only workers of this host are judged.

    Returns:
        What was done, in the order of trial numbers.

    Raises:
        ValueError: The storage or the study does not exist.
    """
    here = _owner.current()
    if here is None:
        raise ValueError(f"cannot reap: {_owner.why_unknown()}")
    deaths = Deaths(state or os.environ.get("OOMGUARD_STATE"))
    done: list[Reaped] = []
    for study in _studies(study_or_storage, study_name):
        # SQLite lets two reapers both win the change of a trial's state.
        with alone(lock_name(study), LOCK_PATIENCE):
            done += _reap_study(study, here, deaths, frozenset(dead_hosts))
    return done


def lock_name(study: Study) -> str | None:
    """Of the lock that whoever queues trials of ``study`` again holds."""
    spec = spec_of(study._storage)
    return None if spec is None else f"reap\n{spec}\n{study.study_name}"


def _studies(target: Study | BaseStorage | str, name: str | None) -> list[Study]:
    if isinstance(target, Study):
        return [target]
    storage = open_storage(target) if isinstance(target, str) else optuna.storages.get_storage(target)
    names = [study.study_name for study in storage.get_all_studies()]
    if name is not None:
        if name not in names:
            known = ", ".join(f"`{known}`" for known in names[:10]) or "none at all"
            raise ValueError(f"there is no study `{name}` in this storage (it has {known})")
        names = [name]
    # The sampler is told of nothing here, so the cheapest one will do.
    sampler = optuna.samplers.RandomSampler()
    pruner = optuna.pruners.NopPruner()
    return [optuna.load_study(study_name=each, storage=storage, sampler=sampler, pruner=pruner) for each in names]


def _reap_study(study: Study, here: Owner, deaths: Deaths, dead_hosts: frozenset[str]) -> list[Reaped]:
    done = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        candidates = owners(trial)
        if not candidates or not all(_owner.is_dead(owner, here, dead_hosts) for owner in candidates):
            continue
        owner = candidates[0]
        death = next((found for each in candidates if (found := deaths.of(each))), None)
        if death is None and _record_will_come(owner, here):
            continue
        done += _finish(study, trial, owner, death or _unrecorded(owner, here))
    return done


def _record_will_come(owner: Owner, here: Owner) -> bool:
    """A sibling worker under our own living guard has just died: its own replacement will find the record."""
    if not owner.job or not here.job or not _core.snapshot().guarded:
        return False
    (run, _, worker), (our_run, _, our_worker) = (each.job.partition("/") for each in (owner, here))
    return run == our_run and worker.rpartition("#")[0] != our_worker.rpartition("#")[0]


def _unrecorded(owner: Owner, here: Owner) -> Death:
    reboot = (owner.host, owner.machine) == (here.host, here.machine) and owner.boot != here.boot
    return Death("reboot" if reboot else "unknown", own=False, available_gb=None, usage_gb=None, limit_gb=None)


def _finish(study: Study, trial: FrozenTrial, owner: Owner, death: Death) -> list[Reaped]:
    storage = study._storage
    unrecorded = death.cause in ("reboot", "unknown")
    own = death.own or (unrecorded and is_retry(trial))
    end = TrialState.PRUNED if own else TrialState.FAIL
    try:
        storage.set_trial_user_attr(trial._trial_id, KILLED, True)
        storage.set_trial_user_attr(trial._trial_id, REASON, _reason(death))
        storage.set_trial_user_attr(trial._trial_id, AVAILABLE, death.available_gb)
        storage.set_trial_system_attr(trial._trial_id, CAUSE, death.cause)
        if death.cause in MEMORY_CAUSES:
            storage.set_trial_user_attr(trial._trial_id, OOM_CAUSE, death.cause)
        limit = trial.system_attrs.get(MEMORY_CONSTRAINT)
        if limit is not None and death.own:
            peak = limit if death.usage_gb is None else death.usage_gb * GIB
            storage.set_trial_system_attr(trial._trial_id, CONSTRAINT_KEY, excess(peak, limit, ran_out=True))
        retried = not own and death.cause not in NO_RETRY and enqueue_again(study, storage.get_trial(trial._trial_id))
        storage.set_trial_state_values(trial._trial_id, end, _last_report(study, trial) if own else None)
    except RuntimeError as error:
        # Another reaper, or Optuna's own heartbeat, was first (UpdateFinishedTrialError from Optuna 4.5 on).
        if storage.get_trial(trial._trial_id).state.is_finished():
            return []
        raise error
    done = Reaped(study.study_name, trial.number, end.name, death.cause, retried, owner.pid, owner.host)
    logger().warning(
        "Trial #%d: its worker (pid %d) died [%s]; now %s%s",
        done.number,
        done.pid,
        done.cause,
        done.state,
        ", queued again" if retried else "",
    )
    return [done]


def _reason(death: Death) -> str:
    if death.cause == "limit" and death.usage_gb is not None and death.limit_gb is not None:
        return f"OOM prevention [limit: {death.usage_gb:.1f} GB of {death.limit_gb:.1f} GB]"
    if death.cause == "vram" and death.gpu is not None and death.vram_gb is not None:
        limit = "" if death.vram_limit_gb is None else f" of {death.vram_limit_gb:.1f} GB"
        return f"OOM prevention [VRAM of {death.gpu}: {death.vram_gb:.1f} GB{limit}]"
    words = {
        "age": "Planned restart",
        "requested": "Stop requested",
        "timeout": "Time limit",
        "crash": "Worker ended",
        "finished": "Worker ended",
        "reboot": "Worker died",
        "unknown": "Worker died",
    }
    return f"{words.get(death.cause, 'OOM prevention')} [{death.cause}]"


def _last_report(study: Study, trial: FrozenTrial) -> list[float] | None:
    """What Optuna gives a pruned trial as its value: its last report, if that is a number."""
    step = trial.last_step
    if step is None or len(study.directions) != 1:
        return None
    value = trial.intermediate_values[step]
    return [float(value)] if value == value else None
