"""What Optuna workers need so that no trial is lost. Optuna 3.4 to 5.x; SQLite, PostgreSQL, MySQL and journals.

    study = oomguard.optuna.attach(optuna.load_study(study_name="s", storage="sqlite:///s.db"))
    study.optimize(objective)

and in the objective, as often as you like: ``oomguard.optuna.check_memory(trial, f"split {i}/5")``.

``python -m oomguard.optuna reap`` ends the trials of dead workers from the command line.
"""

from __future__ import annotations

try:
    import optuna as _optuna  # noqa: F401
except ImportError as error:
    raise ImportError("oomguard.optuna needs Optuna 3.4 or later: pip install 'oomguard[optuna]'") from error

from oomguard.optuna._attach import attach
from oomguard.optuna._objective import callback, check_memory, objective, valid_trials
from oomguard.optuna._reap import Reaped, reap

__all__ = ["Reaped", "attach", "callback", "check_memory", "objective", "reap", "valid_trials"]
