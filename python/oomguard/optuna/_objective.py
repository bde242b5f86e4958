"""The brake inside a trial: what a check does to it, and what an exception makes of it."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import optuna
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from oomguard import _core
from oomguard._brake import announce, logger, raise_stop
from oomguard._errors import MemoryCritical
from oomguard._guard import guard
from oomguard._monitor import GIB, to_bytes
from oomguard._state import MEMORY_CAUSES, OWN_CAUSES
from oomguard.optuna._constraint import constraint_bytes
from oomguard.optuna._inheritance import forget_inheritance
from oomguard.optuna._names import AVAILABLE, CAUSE, KILLED, OOM_CAUSE, REASON
from oomguard.optuna._out_of_memory import brake_behind, memory_that_ran_out
from oomguard.optuna._peak import Watch
from oomguard.optuna._retry import enqueue_again

Value = float | Sequence[float]


@functools.lru_cache(maxsize=16)
def _threshold(safe_threshold_gb: float) -> int:
    return to_bytes("safe_threshold_gb", safe_threshold_gb)


def check_memory(trial: BaseTrial, context: str = "", safe_threshold_gb: float = 2.0) -> None:
    """Prunes ``trial`` if memory is too short to go on; else costs some 0.2 microseconds and no system call.

    Without a guard it compares the machine's available memory with ``safe_threshold_gb``. Under a living guard it
    prunes when the guard asks this very worker to, and the threshold is the guard's: if every worker pruned on its own,
    one shortage would end all their trials.

    When it prunes it logs the emergency block, and sets the user attributes ``emergency_killed`` (``True``),
    ``kill_reason`` (``OOM prevention [context]``) and ``available_gb_at_kill`` (GiB, ``None`` if unknown). If the trial
    is not to blame (a neighbour's memory, a planned restart) its parameters are queued again, once.

    Args:
        trial: The trial that the objective was given (or a ``FixedTrial``, on which nothing is queued again).
        context: Where the objective is, for example ``"split 3/5"``.
        safe_threshold_gb: In GB of 1024 MiB.

    Raises:
        optuna.TrialPruned: Let it pass through the objective.
        TypeError, ValueError: ``safe_threshold_gb`` is not a size.
    """
    threshold = _threshold(safe_threshold_gb)
    if not _core.should_stop(threshold):
        return
    try:
        raise_stop(context, threshold)
    except MemoryCritical as critical:
        stop = critical.with_traceback(None)
    else:
        return
    prune(trial, stop)


class PrunedToGiveBack(optuna.TrialPruned):
    """What :func:`prune` raises; ``cause`` is the guard's word."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason, cause)
        self.cause = cause

    def __str__(self) -> str:
        return str(self.args[0])


def prune(trial: BaseTrial, stop: MemoryCritical) -> NoReturn:
    """Records on ``trial`` why it ends, and ends it.

    Raises:
        optuna.TrialPruned: Always.
    """
    number = getattr(trial, "number", 0)
    subject = f"Trial #{number}"
    label = stop.context if stop.context.startswith(subject) else f"{subject} {stop.context}".rstrip()
    announce(label, subject, stop)
    reason = reason_of(stop.cause, ": ".join(filter(None, (stop.context, stop.vram))))
    try:
        trial.set_user_attr(KILLED, True)
        trial.set_user_attr(REASON, reason)
        trial.set_user_attr(AVAILABLE, None if stop.available is None else round(stop.available / GIB, 3))
        if stop.cause in MEMORY_CAUSES:
            trial.set_user_attr(OOM_CAUSE, stop.cause)
        if isinstance(trial, Trial):
            storage = trial.study._storage
            storage.set_trial_system_attr(trial._trial_id, CAUSE, stop.cause)
            if _core.snapshot().stop is not None and stop.cause not in OWN_CAUSES:
                enqueue_again(trial.study, storage.get_trial(trial._trial_id))
    except Exception as error:
        # A storage that is down must not turn the brake into a crash: giving the memory back comes first.
        logger().warning("%s: could not record why it was pruned: %s", subject, error)
    raise PrunedToGiveBack(reason, stop.cause)


def reason_of(cause: str, context: str) -> str:
    """The text of ``kill_reason``."""
    words = {"age": "Planned restart", "requested": "Stop requested", "timeout": "Time limit"}.get(cause)
    return f"{words or 'OOM prevention'} [{context or cause}]"


def objective(
    function: Callable[[Trial], Value], *, memory_constraint: int | str | None = None, interrupt: bool = False
) -> Guarded:
    """Wraps an objective so that no way out of it loses the trial.

    ``MemoryCritical``, ``MemoryError`` and what torch, CuPy, JAX and TensorFlow raise when memory runs out prune the
    trial, with the three attributes of :func:`check_memory` and ``oom_cause``: ``limit`` for RAM, ``vram`` for a
    device's. (As FAIL, which is what Optuna makes of a ``MemoryError``, the TPE sampler forgets them and goes back:
    93-97 % of the later trials ran out of memory with Optuna 3.4 and 4.5, 12 % as PRUNED.) A ``SystemExit`` fails the
    trial before it passes on; Optuna would leave it RUNNING for ever. What a retry inherited from a killed trial is
    reset.

    However it ends, the user attribute ``peak_rss`` says how many bytes this process had resident at most while the
    trial ran (this process alone: child processes do not count). Where trials overlap in one process (``n_jobs > 1``)
    it is the peak of all of them together, and ``peak_rss_shared`` is ``True``. It costs one write to the storage, and
    sets the process's high-water mark back (``VmHWM``, ``ru_maxrss``).

    ``attach`` does this by itself for ``study.optimize``.

    Args:
        function: The objective.
        memory_constraint: Bytes, or ``"6GiB"``: from Optuna 5.0 on the samplers learn to stay below. Sets the
            constraint ``peak_rss`` to ``peak_rss - memory_constraint`` in GiB; above 0 the trial is infeasible. Not
            set where trials overlap.
        interrupt: Prune the trial in the middle of whatever it does, once memory is too short to go on, even if it
            never calls :func:`check_memory`: see ``oomguard.guard``. In threads (``n_jobs > 1``) too.

    Raises:
        TypeError: ``function`` cannot be called, or ``memory_constraint`` is no size.
        ValueError: The same for a text; or this Optuna has no constraints of a trial (before 5.0).
    """
    limit = constraint_bytes(memory_constraint)
    if isinstance(function, Guarded):
        limit = function.memory_constraint if limit is None else limit
        return Guarded(function.function, limit, interrupt or function.interrupt)
    if not callable(function):
        raise TypeError(f"the objective must be callable, not {function!r}")
    return Guarded(function, limit, interrupt)


class Guarded:
    """What :func:`objective` returns; a class, so that it can be pickled."""

    def __init__(
        self, function: Callable[[Trial], Value], memory_constraint: int | None = None, interrupt: bool = False
    ) -> None:
        self.function = function
        self.memory_constraint = memory_constraint
        self.interrupt = interrupt
        functools.update_wrapper(self, function)

    def __call__(self, trial: Trial) -> Value:
        if trial.user_attrs.get(KILLED):
            _begin_afresh(trial)
        with Watch(trial, self.memory_constraint) as watch:
            try:
                if self.interrupt:
                    # One call and nothing else: see `oomguard.guard` on what CPython may lose beside it.
                    with guard(trial, interrupt=True):
                        return self.function(trial)
                return self.function(trial)
            except MemoryCritical as critical:
                stop = critical.with_traceback(None)
            except SystemExit as leaving:
                if not _core.stop_requested():
                    watch.end()
                    _fail(trial, leaving)
                    raise
                stop = MemoryCritical("SystemExit", _core.snapshot().cause or "requested", _core.available())
            except optuna.TrialPruned as pruned:
                # Optuna's loop and this exception hold each other until a garbage collection, and with them what the
                # objective's frames hold.
                traceback.clear_frames(pruned.__traceback__)
                raise
            except Exception as error:
                memory = memory_that_ran_out(error)
                if memory is None:
                    raise
                stop = brake_behind(error) or MemoryCritical(type(error).__name__, memory, _core.available())
            # Outside of `except`: the exception's frames hold the objective's tensors until it is gone.
            prune(trial, stop)


class StopCallback:
    """What :func:`callback` returns."""

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        if _core.stop_requested():
            study.stop()


def callback() -> Callable[[Study, FrozenTrial], None]:
    """For ``study.optimize(..., callbacks=[callback()])``: ends the loop once the process was asked to end.

    ``attach`` adds it by itself.
    """
    return StopCallback()


def _fail(trial: Trial, leaving: SystemExit) -> None:
    if not isinstance(trial, Trial):
        return
    try:
        trial.set_user_attr(REASON, f"SystemExit: {leaving.code}")
        trial.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except Exception as error:
        logger().warning("Trial #%s: could not record its SystemExit: %s", trial.number, error)


def _begin_afresh(trial: BaseTrial) -> None:
    if isinstance(trial, Trial):
        storage = trial.study._storage
        forget_inheritance(storage, storage.get_trial(trial._trial_id))


def valid_trials(study: Study, states: Sequence[TrialState] = (TrialState.COMPLETE,)) -> list[FrozenTrial]:
    """The trials whose values mean something: in one of ``states``, and not ended by an emergency brake.

    Older runs of the origin system recorded killed trials as COMPLETE with the value -999: those are left out too.
    """
    trials: list[Any] = study.get_trials(states=tuple(states))
    return [trial for trial in trials if not trial.user_attrs.get(KILLED)]
