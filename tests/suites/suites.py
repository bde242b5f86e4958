"""Suites that others wrote: where each comes from, what it needs, and what is known to differ."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A difference that is the suite's: ``pattern`` is an ``fnmatch`` of node ids."""

    pattern: str
    reason: str


class Suite(NamedTuple):
    """``tests`` are paths in the source distribution, or in ``site-packages`` if ``inside`` is set."""

    package: str
    kind: str
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()
    inside: bool = False
    args: tuple[str, ...] = ()
    known: tuple[Known, ...] = ()


BUILT_IN = {
    "numpy": Suite(
        "numpy",
        "compiled; tests in the package; hypothesis",
        ("numpy/linalg/tests", "numpy/lib/tests", "numpy/fft/tests", "numpy/ma/tests"),
        ("hypothesis",),
        inside=True,
    ),
    "scikit-learn": Suite(
        "scikit-learn",
        "compiled, OpenMP; joblib's workers; a conftest.py above the tests",
        ("sklearn/tree/tests", "sklearn/utils/tests", "sklearn/metrics/tests/test_common.py"),
        ("pandas",),
        inside=True,
    ),
    "optuna": Suite(
        "optuna",
        "threads, processes, SQLite; 4,000 parametrized tests",
        ("tests/study_tests", "tests/trial_tests", "tests/pruners_tests", "tests/test_distributions.py"),
        ("cmaes", "scipy", "fakeredis[lua]", "grpcio", "protobuf", "plotly<7", "pandas", "moto"),
    ),
    "werkzeug": Suite(
        "werkzeug",
        "session fixtures, tmp_path, monkeypatch, capsys; servers in processes of their own; pytest-timeout",
        ("tests",),
        ("cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "watchdog"),
        args=("--timeout=60",),
    ),
    "jinja2": Suite("jinja2", "pure Python; asyncio and trio by hand", ("tests",), ("trio",)),
    "anyio": Suite(
        "anyio",
        "asyncio, trio and uvloop by a plugin; threads, signals, subinterpreters",
        ("tests",),
        (
            "blockbuster", "hypothesis", "psutil", "pytest-mock", "pytest-timeout", "trustme", "truststore", "trio",
            "uvloop", "coverage",
        ),
        known=(
            Known(
                "tests/test_to_thread.py::test_run_sync_worker_cyclic_references*",
                "a fork calls gc.get_referrers through a function, by which a coroutine that asks is seen",
            ),
        ),
    ),
    "joblib": Suite(
        "joblib",
        "multiprocessing, loky, threads, shared memory",
        ("joblib/test",),
        ("numpy", "pytest-timeout"),
        inside=True,
    ),
    "networkx": Suite(
        "networkx",
        "doctests of modules (--doctest-modules) beside tests",
        ("networkx/algorithms/tree", "networkx/algorithms/shortest_paths", "networkx/readwrite"),
        ("numpy", "scipy"),
        inside=True,
        args=("--doctest-modules",),
    ),
    "pluggy": Suite("pluggy", "pure Python, small", ("testing",), ("pytest-benchmark", "coverage")),
    "attrs": Suite(
        "attrs", "pure Python; hypothesis; YAML files that a plugin collects", ("tests",),
        ("hypothesis", "cloudpickle", "pympler"),
    ),
}  # fmt: skip
