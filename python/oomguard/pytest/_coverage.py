"""Puts together what coverage has measured in many processes, and reports it as pytest-cov would after one.

    python -m oomguard.pytest._coverage DATA_FILE... -- [--cov-report=TYPE[:DEST]] [--cov-config=FILE] [...]

Behind ``--`` stand the user's pytest arguments; those of pytest-cov count, the others are passed over. Every process
has run with ``COVERAGE_FILE`` set to a file in a folder of its own, and with ``--cov-report=`` and
``--cov-fail-under=0`` behind the user's arguments. The data files are combined into the user's own (``.coverage``) and
removed.

Exits with 0, with 2 if ``--cov-fail-under`` is missed, and with 1 and a line on stderr if there is nothing to report.
Uses coverage's public API only.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

MISSED = 2
"""Exit code of ``coverage report --fail-under``."""


def main(arguments: list[str]) -> int:
    """Combines and reports."""
    if "--" not in arguments:
        return _nothing("usage: python -m oomguard.pytest._coverage DATA_FILE... -- PYTEST_ARGS...")
    at = arguments.index("--")
    files, given = [file for file in arguments[:at] if os.path.exists(file)], _options(arguments[at + 1 :])
    try:
        import coverage
    except ImportError:
        return _nothing("coverage is not installed: pip install pytest-cov")
    if not files:
        return _nothing("no test file has left coverage data: does `--cov` name code that was run?")
    try:
        cov = coverage.Coverage(config_file=given.config)
        if given.append:
            cov.load()
        else:
            cov.get_data().erase()
        cov.combine(files, strict=True)
        cov.save()
        total = _report(cov, given)
    except coverage.CoverageException as error:
        return _nothing(str(error))
    return _verdict(cov, given, total)


def _options(arguments: list[str]) -> argparse.Namespace:
    """Those of pytest-cov that say something about reports."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--cov-report", action="append", default=[], dest="reports")
    parser.add_argument("--cov-config", default=".coveragerc", dest="config")
    parser.add_argument("--cov-fail-under", type=float, dest="least")
    parser.add_argument("--cov-append", action="store_true", dest="append")
    return parser.parse_known_args(arguments)[0]


def _report(cov: Any, given: argparse.Namespace) -> float:
    """Writes every report that was asked for; the total in percent."""
    reports = [report for report in given.reports if report] or ([] if given.reports else ["term"])
    total = None
    for report in reports:
        kind, _, to = report.partition(":")
        to = to or None
        if kind in ("term", "term-missing"):
            total = cov.report(
                show_missing=kind == "term-missing" or None,
                skip_covered=to == "skip-covered" or None,
                ignore_errors=True,
            )
        elif kind == "html":
            total = cov.html_report(directory=to, ignore_errors=True)
        elif kind in ("xml", "json", "lcov"):
            total = getattr(cov, f"{kind}_report")(outfile=to, ignore_errors=True)
        elif kind in ("markdown", "markdown-append"):
            mode = "a" if kind == "markdown-append" else "w"
            with open(to or "coverage.md", mode) as file:
                total = cov.report(file=file, output_format="markdown", ignore_errors=True)
        elif kind == "annotate":
            cov.annotate(directory=to, ignore_errors=True)
        else:
            print(f"oomguard: `--cov-report={report}` is not known here", file=sys.stderr)
    if total is None:
        with open(os.devnull, "w") as nobody:
            total = cov.report(file=nobody, ignore_errors=True)
    return float(total)


def _verdict(cov: Any, given: argparse.Namespace, total: float) -> int:
    least = float(cov.get_option("report:fail_under") or 0) if given.least is None else given.least
    precision = int(cov.get_option("report:precision") or 0)
    # coverage's own rule: nothing is rounded up to 100.
    reached = total == 100 if least == 100 else round(total, precision) >= least
    if least and not reached:
        print(f"FAIL Required test coverage of {least:g}% not reached. Total coverage: {total:.2f}%")
        return MISSED
    if least:
        print(f"Required test coverage of {least:g}% reached. Total coverage: {total:.2f}%")
    return 0


def _nothing(why: str) -> int:
    print(f"oomguard: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
