"""The names under which things stand in a study's storage."""

from __future__ import annotations

KILLED = "emergency_killed"
REASON = "kill_reason"
AVAILABLE = "available_gb_at_kill"
KILL_ATTRS = (KILLED, REASON, AVAILABLE)
"""User attributes of a trial that oomguard ended; the origin system's names."""

PREFIX = "oomguard:"
OWNER = "oomguard:owner"
"""System attribute of a trial born in an attached worker: its process."""
CLAIM = "oomguard:claim:"
"""System attributes of a trial that was taken from the queue: one for each process that tried to."""
CAUSE = "oomguard:cause"
"""System attribute of a trial that was ended: the guard's word for why."""
RETRY_OF = "oomguard:retry_of"
"""System attribute of a trial that was queued again: the number of the one it replaces."""

RETRY_HISTORY = "retry_history"
FAILED_TRIAL = "failed_trial"
"""Optuna's own names, so that ``RetryHeartbeatStaleTrialCallback.retried_trial_number`` works on our retries."""
