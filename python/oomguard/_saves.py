"""A framework's own saves: not interrupted, never half written, and told to the guard.

Never decides when to save.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator

import oomguard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Around a save: shielded; when it succeeds, the guard knows that killing this job costs little now."""
    with oomguard.shield():
        yield
    oomguard.checkpoint()


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Gives a path beside ``path``, with the same suffix, to write to; afterwards it takes the place of ``path``.

    Whatever ends the process meanwhile, ``path`` is the old file or the new one. The folder is created.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f".{os.getpid()}.{name}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


class ToldSave:
    """Stands in for the method ``name`` of ``owner``, which saves: does the same inside of :func:`saving`.

    It holds ``owner`` weakly, or the two would live until the next full garbage collection; a copied or unpickled
    owner gets one of its own.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._owner = weakref.ref(owner)
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        owner = self._owner()
        if owner is None:
            raise ReferenceError(f"cannot call `{self._name}`: its object is gone")
        save: Callable[..., object] = getattr(type(owner), self._name)
        with saving():
            return save(owner, *args, **kwargs)

    def __reduce__(self) -> tuple[type[ToldSave], tuple[object, str]]:
        return ToldSave, (self._owner(), self._name)


def tell_of_saves(owner: object, name: str) -> None:
    """From now on the guard hears of every ``owner.name(...)`` that succeeds. One that somebody replaced is left."""
    vars(owner).setdefault(name, ToldSave(owner, name))


def tell_no_more(owner: object, name: str) -> None:
    """Undoes :func:`tell_of_saves`."""
    if isinstance(vars(owner).get(name), ToldSave):
        del vars(owner)[name]
