"""One worker of the demo: a real model on a real data set, tuned by Optuna, with three faults built in.

In their first lives, worker 1 leaks: every trial leaves memory behind, as cyclic agents and their buffers do.
Worker 2 has one trial that spikes, and another that hangs: it neither checks nor listens to SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import oomguard.optuna

STORAGE = os.environ["DEMO_STORAGE"]
TRIALS = int(os.environ.get("DEMO_TRIALS", "40"))
WORKER = int(os.environ.get("OOMGUARD_WORKER", "1"))
FIRST_LIFE = os.environ.get("OOMGUARD_JOB", "#1").endswith("#1")
EPOCHS = 12
SPIKES, HANGS = 4, 6
MIB = 2**20

begun: list[int] = []
leaked: list[np.ndarray] = []
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16.0, y, random_state=0, stratify=y)


def objective(trial: optuna.Trial) -> float:
    model = MLPClassifier(
        hidden_layer_sizes=(trial.suggest_int("width", 16, 128),) * trial.suggest_int("depth", 1, 3),
        learning_rate_init=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        random_state=trial.number,
    )
    scratch: list[np.ndarray] = []
    score = 0.0
    for epoch in range(EPOCHS):
        for _ in range(6):
            model.partial_fit(x_train, y_train, classes=np.arange(10))
        if WORKER == 1 and FIRST_LIFE:
            leaked.append(np.ones(6 * MIB, dtype=np.uint8))
        if is_mine(trial, SPIKES):
            scratch.append(np.ones(48 * MIB, dtype=np.uint8))
        while is_mine(trial, HANGS):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            model.partial_fit(x_train, y_train)
        oomguard.optuna.check_memory(trial, f"epoch {epoch + 1}/{EPOCHS}")
        score = float(model.score(x_test, y_test))
        trial.report(score, epoch)
    return score


def is_mine(trial: optuna.Trial, which: int) -> bool:
    """Whether this is the ``which``-th trial of worker 2's first life."""
    return WORKER == 2 and FIRST_LIFE and len(begun) == which and begun[-1] == trial.number


def named(trial: optuna.Trial) -> float:
    begun.append(trial.number)
    trial.set_user_attr("worker", WORKER)
    return objective(trial)


def enough(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
    if len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])) >= TRIALS:
        study.stop()


def main() -> int:
    warnings.filterwarnings("ignore")
    study = oomguard.optuna.attach(optuna.load_study(study_name="digits", storage=STORAGE))
    study.optimize(named, callbacks=[enough])
    return 0


if __name__ == "__main__":
    sys.exit(main())
