"""Runs a script and says what its memory went to."""

from __future__ import annotations

import argparse
import json
import os
import sys
import types
from collections.abc import Sequence

from oomguard.leaks import watch

EXAMPLE = """\
example:
  python -m oomguard.leaks train.py --epochs 1
  python -m oomguard.leaks --json leaks.json train.py

The script runs as `python SCRIPT` would run it, in this process. The report goes to stderr when it has ended, with its
global variables still alive; the exit code is the script's.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script; the exit code is its own, 1 after an exception that it did not catch, 2 for a wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m oomguard.leaks", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the report to FILE too; sizes in bytes, times in seconds")
    parser.add_argument("script", help="a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script finds in sys.argv")
    given = parser.parse_args(arguments)
    if not os.path.isfile(given.script):
        parser.error(f"`{given.script}` is not a file")
    sys.argv = [given.script, *given.arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(given.script))
    # Not runpy: after a sys.exit() it would have thrown the script's variables away.
    script = types.ModuleType("__main__", None)
    script.__file__ = given.script
    sys.modules["__main__"] = script
    code = 0
    with watch() as watched:
        try:
            with open(given.script, "rb") as file:
                exec(compile(file.read(), given.script, "exec"), script.__dict__)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
        except Exception:
            sys.excepthook(*sys.exc_info())
            code = 1
    print(watched.report, file=sys.stderr)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as out:
            json.dump(watched.report.as_json(), out)
    return code


if __name__ == "__main__":
    sys.exit(main())
