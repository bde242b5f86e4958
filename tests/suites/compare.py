"""Compares `oomguard test` with plain pytest on suites that others wrote: the same outcome for every test id?

Exits with 1 if a difference is left that nothing explains. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import shutil
import sys
from collections.abc import Iterable, Sequence

import runs
from place import Place, beside_python, prepare
from suites import BUILT_IN, Suite

CACHE = pathlib.Path.home() / ".cache" / "oomguard-suites"
AGAIN = 2
"""Further plain runs of a file with a difference: a test that differs among them is flaky."""

Difference = tuple[str, tuple[str, str], tuple[str, str]]
"""A node id, and the word and message of each side."""
ABSENT = ("absent", "")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options(argv)
    chosen = [_suite(name, options) for name in options.package or list(BUILT_IN)]
    unexplained = 0
    for suite in chosen:
        name = suite.package.replace("==", "-")
        folder = options.folder / name
        print(f"== {suite.package}: {suite.kind}", flush=True)
        place = prepare(suite, folder, options.oomguard)
        unexplained += compare(suite, place, options.isolation or ["auto", "spawn"], options.jobs)
        if not options.keep:
            shutil.rmtree(folder)
    print(f"{len(chosen)} suites, {unexplained} unexplained differences")
    return min(unexplained, 1)


def compare(suite: Suite, place: Place, isolations: Iterable[str], jobs: str) -> int:
    """Runs all sides; the number of differences that nothing explains."""
    plain = runs.plain(place, "plain", suite.tests, suite.args)
    print(f"plain: {_summary(plain)}", flush=True)
    unexplained = 0
    if not plain.outcomes:
        print(f"plain pytest ran no test: {plain.log}")
        return 1
    explain = Explanations(suite, place)
    for isolation in isolations:
        guarded = runs.guarded(place, isolation, jobs, suite.tests, suite.args)
        print(f"{isolation}: {_summary(guarded)}", flush=True)
        for difference in differences(plain.outcomes, guarded.outcomes):
            nodeid, (plain_word, plain_message), (word, message) = difference
            why = explain(difference)
            unexplained += why is None
            print(f"  {nodeid}\n    plain    {plain_word}: {plain_message}\n    oomguard {word}: {message}")
            print(f"    {why or 'UNEXPLAINED'}", flush=True)
    return unexplained


def differences(plain: runs.Outcomes, guarded: runs.Outcomes) -> list[Difference]:
    """Of every id that either knows."""
    ids = [*plain, *(nodeid for nodeid in guarded if nodeid not in plain)]
    pairs = ((nodeid, plain.get(nodeid, ABSENT), guarded.get(nodeid, ABSENT)) for nodeid in ids)
    return [pair for pair in pairs if pair[1][0] != pair[2][0]]


class Explanations:
    """Why a difference is the suite's own. Plain pytest is asked: file by file, and again."""

    def __init__(self, suite: Suite, place: Place) -> None:
        self._suite = suite
        self._place = place
        self._alone: dict[str, list[runs.Outcomes]] = {}

    def __call__(self, difference: Difference) -> str | None:
        nodeid, (plain_word, _), (word, _) = difference
        for known in self._suite.known:
            if fnmatch.fnmatchcase(nodeid, known.pattern):
                return f"known: {known.reason}"
        found = [outcomes.get(nodeid, ABSENT)[0] for outcomes in self._file(nodeid.partition("::")[0])]
        if len(set(found)) > 1:
            return f"flaky: plain pytest says {plain_word}, and of the file alone {', '.join(found)}"
        if set(found) == {word}:
            return f"order: plain pytest says {word}, too, of the file alone"
        return None

    def _file(self, file: str) -> list[runs.Outcomes]:
        if file not in self._alone:
            found = self._alone[file] = []
            for n in range(AGAIN):
                found.append(runs.plain(self._place, f"again-{n}", [self._path(file)], self._suite.args).outcomes)
        return self._alone[file]

    def _path(self, file: str) -> str:
        """Node ids begin where pytest found its settings, which is seldom elsewhere than where it was started."""
        if (self._place.cwd / file).exists():
            return file
        return next((str(path) for path in self._place.cwd.rglob(file)), file)


def _summary(run: runs.Run) -> str:
    words = [word for word, _ in run.outcomes.values()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))
    return f"{len(words)} ids ({counts}), exit code {run.code}, {run.seconds:.1f} s"


def _suite(name: str, options: argparse.Namespace) -> Suite:
    bare = name.partition("==")[0]
    known = BUILT_IN.get(bare)
    if known is None:
        if not options.tests:
            sys.exit(f"compare.py: `{name}` is not built in ({', '.join(BUILT_IN)}): say which --tests")
        known = Suite(name, "", ())
    return known._replace(
        package=name,
        tests=tuple(options.tests) or known.tests,
        needs=(*known.needs, *options.needs),
        inside=options.inside or known.inside,
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--package",
        action="append",
        help="one that is built in, or any other, with or without ==VERSION; again for more",
    )
    add("--tests", action="append", default=[], help="a file or folder of the suite")
    add("--needs", action="append", default=[], help="a further package to install")
    add("--inside", action="store_true", help="the tests are installed with the package")
    add("--isolation", action="append", choices=["auto", "fork", "spawn"], help="auto and spawn, unless given")
    add("-n", dest="jobs", default="2", help="files at a time")
    add("--keep", action="store_true", help="keep environments and logs for the next run")
    add("--folder", type=pathlib.Path, default=CACHE, help="where they lie")
    add("--oomguard", type=pathlib.Path, default=beside_python(), help="the command to try")
    options = parser.parse_args(argv)
    if not options.oomguard.exists():
        parser.error(f"`{options.oomguard}` does not exist: install this project, or name another one with --oomguard")
    options.oomguard = options.oomguard.resolve()
    options.folder = options.folder.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
