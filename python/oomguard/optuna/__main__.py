"""``python -m oomguard.optuna reap``: ends the trials that dead workers left RUNNING."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a study could not be reaped (the others were), 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m oomguard.optuna", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("reap", help="end the RUNNING trials of dead workers of this host")
    where = verb.add_mutually_exclusive_group(required=True)
    where.add_argument("--storage", metavar="URL", help="a database URL, or journal:PATH")
    where.add_argument("--state", metavar="DIR", help="a guard's state directory: every study registered there")
    verb.add_argument("--study", metavar="NAME", help="only this study (default: all in the storage)")
    verb.add_argument("--deaths", metavar="DIR", help="with --storage: state directory that holds the record of deaths")
    verb.add_argument(
        "--dead-host",
        metavar="HOST",
        action="append",
        default=[],
        help="this host is gone: reap its trials too (repeatable)",
    )
    verb.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args(arguments)
    if given.state and (given.study or given.deaths):
        parser.error("--study and --deaths go with --storage; --state names both by itself")

    import logging
    import os

    from oomguard._state import studies
    from oomguard.optuna._reap import reap
    from oomguard.optuna._spec import hide_password

    logging.getLogger("oomguard").setLevel(logging.ERROR)
    if given.state:
        if not os.path.isdir(given.state):
            print(f"error: `{given.state}` is not a directory", file=sys.stderr)
            return 2
        targets = [(study.storage, study.study) for study in studies(given.state)]
    else:
        targets = [(given.storage, given.study)]
    failed = 0
    total = 0
    for storage, name in targets:
        try:
            done = reap(storage, name, state=given.state or given.deaths, dead_hosts=given.dead_host)
        except Exception as error:
            failed += 1
            said = (str(error).splitlines() or [type(error).__name__])[0]
            if given.json:
                print(json.dumps({"storage": hide_password(storage), "study": name, "error": said}))
            print(f"error: {said}", file=sys.stderr)
            continue
        total += len(done)
        for trial in done:
            if given.json:
                print(json.dumps(trial._asdict()))
            else:
                again = ", queued again" if trial.retried else ""
                print(f"{trial.study}: trial {trial.number} is {trial.state} [{trial.cause}]{again}")
    if not given.json:
        print(f"{total} reaped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
