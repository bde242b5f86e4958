"""The demo: two Optuna workers under ``oomguard up``, each with its faults, and what became of them.

Ends with 0 only if everything that it promises really happened.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / ".demo"
GIB = 2**30


def main() -> int:
    import optuna

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    storage = f"sqlite:///{OUT / 'study.db'}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(study_name="digits", storage=storage, direction="maximize")

    binary = Path(sys.executable).parent / "oomguard"
    path = f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "DEMO_STORAGE": storage, "OMP_NUM_THREADS": "1"}
    if own_cgroup():
        environment.setdefault("OOMGUARD_CGROUP_PARENT", own_cgroup())
    print("$ oomguard up -c examples/demo/oomguard.toml\n", flush=True)
    code = subprocess.call([str(binary), "up", "-c", str(HERE / "oomguard.toml")], env=environment, cwd=HERE)

    study = optuna.load_study(study_name="digits", storage=storage)
    events = [json.loads(line) for line in (OUT / "logs" / "events.jsonl").read_text().splitlines()]
    show_trials(study)
    show_workers(events)
    return verdict(code, study, events)


def own_cgroup() -> str:
    """Where jobs of root go on machines with cgroup v1: beside other services, not below ours."""
    v1 = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return f"/oomguard-demo-{os.getpid()}" if os.geteuid() == 0 and v1.exists() else ""


def show_trials(study: Any) -> None:
    print(f"\n{'TRIAL':<6} {'WORKER':<7} {'STATE':<9} {'SCORE':<7} WHY")
    for trial in study.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        value = f"{trial.value:.3f}" if trial.value is not None else "-"
        why = attrs.get("kill_reason", "")
        if "available_gb_at_kill" in attrs:
            why += f" ({attrs['available_gb_at_kill']:.1f} GB available)"
        print(f"{trial.number:<6} {attrs.get('worker', '-'):<7} {trial.state.name:<9} {value:<7} {why}")


def ended(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (event for event in events if event["event"] == "ended")


def show_workers(events: list[dict[str, Any]]) -> None:
    print(f"\n{'WORKER':<10} {'PID':<8} {'ENDED BY':<10} {'EXIT':<12} {'AGE':<7} PEAK")
    for event in ended(events):
        code = json.dumps(event["exit"]).strip('{}"').replace('"', "")
        print(
            f"{event['worker']:<10} {event['pid']:<8} {event['cause']:<10} {code:<12} "
            f"{event['age_s']:<7.1f} {event['peak'] / 2**20:.0f} MiB"
        )


def verdict(code: int, study: Any, events: list[dict[str, Any]]) -> int:
    armed = next(event for event in events if event["event"] == "armed")
    lowest = min(event["available"] for event in events if "available" in event)
    trials = study.get_trials(deepcopy=False)
    kills = [event for event in events if event["event"] == "kill"]
    checks = {
        "the guard ended well": code == 0,
        "worker 1 leaked and was restarted at its limit": any(
            event["worker"] == "worker-1" and event["cause"] == "limit" for event in ended(events)
        ),
        "one trial spiked and was pruned by the brake": any(
            trial.state.name == "PRUNED"
            and trial.user_attrs["worker"] == 2
            and trial.user_attrs.get("kill_reason", "").startswith("OOM prevention")
            for trial in trials
        ),
        "worker 2 ignored SIGTERM and was killed after its grace": any(
            event["worker"] == "worker-2" and event["after_grace"] for event in kills
        ),
        "the trial that was killed with it was put back and tried again": any(
            trial.state.name == "FAIL" and trial.user_attrs["worker"] == 2 for trial in trials
        ),
        "no trial is left RUNNING": all(trial.state.is_finished() for trial in trials),
        f"the machine never got near its reserve ({lowest / GIB:.1f} GB available at least, reserve "
        f"{armed['reserve'] / GIB:.1f} GB)": lowest > 1.5 * armed["reserve"],
    }
    print()
    for what, ok in checks.items():
        print(f"{'ok  ' if ok else 'FAIL'} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
