"""Keras 3: ``model.fit(..., callbacks=[oomguard.keras.MemoryGuard(save_to="last.keras")])``, on any backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

try:
    import keras as _keras
except ImportError as error:
    raise ImportError("oomguard.keras needs Keras 3 and a backend: pip install 'oomguard[keras]'") from error

from oomguard import _core
from oomguard._saves import replacing, saving, tell_no_more, tell_of_saves
from oomguard._training import Brake

if TYPE_CHECKING:
    from oomguard._training import OnWarning

__all__ = ["MemoryGuard"]

_SAVES = ("save", "save_weights")
_SUFFIXES = (".keras", ".weights.h5")


class MemoryGuard(_keras.callbacks.Callback):  # type: ignore[misc]
    """Stops a ``fit`` in good order when memory gets short, and raises when it is too short for that.

    - Level ``warning``, no guard: gives freed memory back; if that does not help, saves to ``save_to`` and sets
      ``model.stop_training``. Keras trains the batch that is due, validates and returns; :attr:`stopped` is
      ``"warning"``.
    - The guard asks this process to give way, or it got SIGTERM after ``oomguard.handle_sigterm()``: saves to
      ``save_to``, then raises ``MemoryCritical`` or ``StopRequested``.
    - Level ``critical``: raises ``MemoryCritical`` without saving. Keras has no cleanup for any exception:
      ``on_epoch_end`` and ``on_train_end`` are not called, and the model keeps the weights of the last batch.
      ``BackupAndRestore`` keeps its backup then, so that the next start goes on from it.

    ``evaluate`` and ``predict`` only raise. What callbacks such as ``ModelCheckpoint`` save through ``model.save`` and
    ``model.save_weights`` is told to the guard (:func:`oomguard.checkpoint`). Several processes that train one model
    are not coordinated: there use ``on_warning="ignore"``.

    A step costs less than a microsecond, and does not make Keras wait for its accelerator.

    Args:
        save_to: ``NAME.keras`` (the model with its optimizer) or ``NAME.weights.h5``, replaced by each stop in one
            move. Without one nothing is saved here.
        on_warning: ``"stop"``, ``"warn"`` (write a line, at most once a minute) or ``"ignore"``.

    Raises:
        ValueError: ``save_to`` ends in neither suffix, or ``on_warning`` is none of these.
    """

    def __init__(self, save_to: str | os.PathLike[str] | None = None, on_warning: OnWarning = "stop") -> None:
        super().__init__()
        self.save_to = None if save_to is None else os.fspath(save_to)
        if self.save_to is not None and not self.save_to.endswith(_SUFFIXES):
            raise ValueError(f"save_to must end in `.keras` or `.weights.h5`, not `{self.save_to}`")
        self._brake = Brake(on_warning)
        self._saver = None if save_to is None else _save
        self._fitting = False

    @property
    def stopped(self) -> str | None:
        """``"warning"`` if this callback ended the last ``fit`` early, in good order; else ``None``."""
        return self._brake.stopped

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins to watch."""
        self._brake.begin()
        self._fitting = True
        for name in _SAVES:
            tell_of_saves(self.model, name)

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves the model as it was."""
        self._fitting = False
        for name in _SAVES:
            tell_no_more(self.model, name)

    # Never the hooks at the end of a batch: a callback that has one makes Keras wait for the accelerator at each batch.
    # And never `self.model` while all is well: with JAX it copies the state of the training into the model.

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Saves, stops, raises."""
        if self._brake.ends("batch", batch, self._saver, self):
            self.model.stop_training = True

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Raises; within ``fit`` it saves first."""
        if self._fitting:
            self._brake.check("validation batch", batch, self._saver, self)
        else:
            _core.check("evaluation")

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Raises."""
        _core.check("prediction")


# Not a method: a guard that holds a method of its own lives, with its model, until the next full collection.
def _save(guard: MemoryGuard) -> None:
    model, path = guard.model, guard.save_to
    assert path is not None
    name = "save_weights" if path.endswith(".weights.h5") else "save"
    with saving(), replacing(path) as partial:
        getattr(type(model), name)(model, partial)
