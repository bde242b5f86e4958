"""Attributes of Optuna trials that hold data: the study keeps each of them until it is gone."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Protocol

from oomguard.leaks._payload import payload

SMALLEST = 64 << 10
"""Bytes below which an attribute is what attributes are for."""


class Attribute(NamedTuple):
    """One large attribute."""

    trial: int
    key: str
    bytes: int


class Study(Protocol):
    """What is asked of an ``optuna.Study``."""

    def get_trials(self, deepcopy: bool = True) -> list[Any]:
        """All trials, the study's own objects without ``deepcopy``."""
        ...  # pragma: no cover


def large_attributes(study: Study) -> list[Attribute]:
    """The user and system attributes of 64 KiB or more, the largest first.

    Raises whatever the study's storage raises.
    """
    found = []
    seen: set[int] = set()
    for trial in study.get_trials(deepcopy=False):
        for attributes in (trial.user_attrs, trial.system_attrs):
            for key, value in attributes.items():
                size = deep_size(value, seen)
                if size >= SMALLEST:
                    found.append(Attribute(trial.number, str(key), size))
    found.sort(key=lambda one: -one.bytes)
    return found


def deep_size(value: object, seen: set[int]) -> int:
    """Bytes of a value and of what is in it, each object once (``seen`` holds the ids and addresses)."""
    stack, size = [value], 0
    while stack:
        part: Any = stack.pop()
        memory = payload(part)
        key = memory[0] if memory is not None else id(part)
        if key in seen:
            continue
        seen.add(key)
        size += memory[1] if memory is not None else sys.getsizeof(part, 64)
        if isinstance(part, dict):
            stack.extend(part.keys())
            stack.extend(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            stack.extend(part)
    return size
