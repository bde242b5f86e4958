"""The names under which things stand in a study's storage."""

from __future__ import annotations

KILLED = "emergency_killed"
REASON = "kill_reason"
AVAILABLE = "available_gb_at_kill"
KILL_ATTRS = (KILLED, REASON, AVAILABLE)
"""User attributes of a trial that oomguard ended; the origin system's names."""

OOM_CAUSE = "oom_cause"
"""User attribute of a trial that memory ended: ``limit``, ``leak`` (its own), ``vram``, ``reserve`` (the machine's)."""
PEAK = "peak_rss"
"""User attribute: the most bytes that its process had resident while the trial ran."""
PEAK_SHARED = "peak_rss_shared"
"""User attribute, ``True`` where other trials ran in the same process: the peak is of all of them together."""
OF_ONE_RUN = (*KILL_ATTRS, OOM_CAUSE, PEAK, PEAK_SHARED)
"""User attributes that a trial which repeats another one must not carry over."""

PREFIX = "oomguard:"
OWNER = "oomguard:owner"
"""System attribute of a trial born in an attached worker: its process."""
CLAIM = "oomguard:claim:"
"""System attributes of a trial that was taken from the queue: one for each process that tried to."""
CAUSE = "oomguard:cause"
"""System attribute of a trial that was ended: the guard's word for why."""
RETRY_OF = "oomguard:retry_of"
"""System attribute of a trial that was queued again: the number of the one it replaces."""
MEMORY_CONSTRAINT = "oomguard:memory_constraint"
"""System attribute: the bytes that ``peak_rss`` is held against, so that a reaper can say that they were exceeded."""

RETRY_HISTORY = "retry_history"
FAILED_TRIAL = "failed_trial"
"""Optuna's own names, so that ``RetryHeartbeatStaleTrialCallback.retried_trial_number`` works on our retries."""
CONSTRAINTS = "constraints"
"""Optuna's name, or the start of it, for constraint values (``constraints:KEY`` from 5.0 on)."""
RUNGS = "completed_rung_"
"""Start of the names under which ``SuccessiveHalvingPruner`` notes how far a trial has come."""
