"""Imports third-party modules into the zygote, one by one, and looks after each whether a fork is still safe.

Never the user's own code: assertion rewriting and isolation are for pytest. At depth ``imports`` no package that brings
a pytest plugin either, as pytest rewrites its assertions when it loads it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings

from oomguard.pytest._zygote import _origin, _safety


class Spoiled(Exception):
    """This process can no longer be forked: it must begin anew without ``module``."""

    def __init__(self, module: str, why: str) -> None:
        super().__init__(why)
        self.module = module
        self.why = why


def preload(names: list[str], passed_over: list[tuple[str, str]], plugins_too: bool) -> list[str]:
    """Imports what may be imported and gives its names; adds the others to ``passed_over``, each with the reason.

    ``x.y`` may be something else than a module, a function in ``x``: that is left out without a word.

    Raises:
        Spoiled: An import has failed, or made a fork unsafe.
    """
    known = {name for name, _ in passed_over}
    done = []
    for name in names:
        if name in known:
            continue
        why = refusal(name, plugins_too)
        if why is not None:
            passed_over.append((name, why))
            continue
        if name in sys.modules or _import(name):
            done.append(name)
    return done


def refusal(name: str, plugins_too: bool) -> str | None:
    """Why a module is not imported here. Imports nothing."""
    if any(name == never or name.startswith(f"{never}.") for never in _safety.NEVER):
        return "is not safe to fork"
    top = name.partition(".")[0]
    if not plugins_too and top in with_plugins():
        return "is of a package with a pytest plugin, which pytest itself imports"
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        return f"cannot be found: {error}"
    if spec is None:
        return "is not installed"
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if not places or not all(_origin.is_installed(place) for place in places):
        return "is not a third-party module"
    return None


@functools.cache
def with_plugins() -> frozenset[str]:
    """Top-level names of all distributions that register pytest plugins: what pytest marks for rewriting."""
    names = set()
    for point in importlib.metadata.entry_points(group="pytest11"):
        names.add(point.value.partition(":")[0].partition(".")[0])
        for file in (point.dist.files or ()) if point.dist is not None else ():
            parts = file.parts
            if len(parts) == 2 and parts[1] == "__init__.py":
                names.add(parts[0])
            elif len(parts) == 1 and file.suffix == ".py":
                names.add(file.stem)
    return frozenset(names)


def users_plugins() -> list[str]:
    """Names of registered pytest plugins whose code is the user's: an editable install."""
    found = []
    for point in importlib.metadata.entry_points(group="pytest11"):
        spec = importlib.util.find_spec(point.value.partition(":")[0].partition(".")[0])
        if spec is not None and _origin.is_users(spec.origin):
            found.append(point.name)
    return found


def _import(name: str) -> bool:
    """Whether there is such a module."""
    found = True
    threads = len(os.listdir("/proc/self/task"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if "." not in missing or not f"{name}.".startswith(f"{missing}."):
            raise Spoiled(name, f"cannot be imported: {error}") from error
        found = False  # nothing was run but what it is in
    except Exception as error:
        raise Spoiled(name, f"cannot be imported: {type(error).__name__}: {error}") from error
    grown = len(os.listdir("/proc/self/task")) > threads
    why = (_safety.threads() if grown else None) or _safety.device() or _safety.cuda() or _safety.never()
    if why is not None:
        raise Spoiled(name, f"is not safe to fork once imported: {why}")
    return found
