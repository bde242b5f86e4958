"""What only the garbage collector can free: which types, why, and how much they hold.

Objects in a cycle stay until a full collection, which counts objects and not bytes: ten dead agents of 50 MB wait as
long as ten dead lists.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import Counter
from typing import NamedTuple

from oomguard.leaks._payload import HEAP_TYPE, Carriers, attributes, gradient, name, own_size, parts, payload

MOST_KINDS = 16
"""Types whose memory is added up one by one; each costs a walk over all that was found."""


class Kind(NamedTuple):
    """One type among the unreachable objects."""

    name: str
    instances: int
    holds: int
    """Bytes that its instances reach together, within what is unreachable. Types may reach the same bytes."""


class Cycles(NamedTuple):
    """What one full collection found."""

    objects: int
    holds: int
    """Bytes of all that is unreachable: the objects, and the arrays and buffers that nothing else refers to."""
    kinds: tuple[Kind, ...]
    """Written classes, those that hold most first."""
    reasons: tuple[tuple[str, int], ...]
    """Why instances reach themselves, and how many do: ``Agent.explore_env is a bound method of itself``."""


def free_and_name() -> Cycles:
    """Collects everything that is unreachable, says what it was, and frees it. Finalizers run once, as always.

    Costs two full collections and a walk over what was found: some 5 microseconds an object. What other threads leave
    behind meanwhile is counted too.
    """
    automatic, flags, kept = gc.isenabled(), gc.get_debug(), len(gc.garbage)
    gc.disable()
    try:
        gc.set_debug(flags | gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(flags)
        return _named(gc.garbage[kept:])
    finally:
        gc.set_debug(flags)
        del gc.garbage[kept:]
        gc.collect()
        if automatic:
            gc.enable()


def _named(garbage: list[object]) -> Cycles:
    if not garbage:
        return Cycles(0, 0, (), ())
    walk = Walk(garbage)
    classes: dict[type, list[object]] = {}
    for thing in garbage:
        kind = type(thing)
        if kind.__flags__ & HEAP_TYPE and kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
            classes.setdefault(kind, []).append(thing)
    # The longest names last: what the user wrote stands in short modules, libraries in deep ones.
    order = sorted(classes, key=lambda kind: (kind.__module__.count("."), -len(classes[kind])))[:MOST_KINDS]
    kinds = [Kind(name(kind), len(classes[kind]), walk.reach(classes[kind])) for kind in order]
    kinds.sort(key=lambda kind: -kind.holds)
    holds = walk.reach(garbage)
    # Last: to look at an instance's attributes by name gives it a dictionary that the walk does not know.
    reasons = Counter(reason for things in classes.values() for thing in things for reason in set(_reasons(thing)))
    return Cycles(len(garbage), holds, tuple(kinds), tuple(reasons.most_common(10)))


class Walk:
    """Adds up what unreachable objects reach among themselves, each byte once."""

    def __init__(self, garbage: list[object]) -> None:
        self.inside = {id(thing): thing for thing in garbage}
        references = Counter(id(part) for thing in garbage for part in parts(thing) if id(part) not in self.inside)
        self.carriers = Carriers()
        # An array that is alive elsewhere stays: only those count to which the unreachable have all references.
        self.leaves: dict[int, tuple[int, int]] = {}
        for thing in garbage:
            left = parts(thing)
            while left:
                part = left.pop()
                # Two references are ours: the variable and the argument.
                if references.get(id(part), -9) < sys.getrefcount(part) - 2:
                    continue
                memory = payload(part) if self.carriers[type(part)] else None
                if memory is not None:
                    self.leaves[id(part)] = memory

    def reach(self, starts: list[object]) -> int:
        """Bytes."""
        seen = {id(start) for start in starts}
        stack, size = list(starts), 0
        memories: dict[int, int] = {}
        while stack:
            thing = stack.pop()
            size += own_size(thing)
            if self.carriers[type(thing)]:
                memories.update(filter(None, (payload(thing), gradient(thing))))
            for part in parts(thing):
                key = id(part)
                if key in self.leaves:
                    address, length = self.leaves[key]
                    memories[address] = length
                elif key not in seen and key in self.inside:
                    seen.add(key)
                    stack.append(part)
        return size + sum(memories.values())


def _reasons(thing: object) -> list[str]:
    """How an instance reaches itself by what is stored on it, one or two steps far."""
    owner = name(type(thing)).rpartition(".")[2]
    found = []
    for key, value in attributes(thing).items():
        where = f"{owner}.{key}"
        inner = value.func if type(value) is functools.partial else value
        if value is thing:
            found.append(f"{where} is itself")
        elif type(inner) is types.MethodType and inner.__self__ is thing:
            of = "a bound method of itself" if inner is value else "a partial of a bound method of itself"
            found.append(f"{where} is {of}")
        elif type(inner) is types.FunctionType and _closes_over(inner, thing):
            found.append(f"{where} is a function that closes over its own object")
        else:
            found.extend(f"{where}.{back} refers back to it" for back, it in attributes(value).items() if it is thing)
    return found


def _closes_over(function: types.FunctionType, thing: object) -> bool:
    for cell in function.__closure__ or ():
        try:
            if cell.cell_contents is thing:
                return True
        except ValueError:  # an empty cell
            continue
    return False
