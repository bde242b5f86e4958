"""Lightning: ``Trainer(callbacks=[oomguard.lightning.MemoryGuard(save_to="last.ckpt")])``.

For ``lightning.pytorch`` and ``pytorch_lightning`` alike. Importing it imports the one that is in use already, else the
one that is installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from oomguard import _ranks
from oomguard._saves import tell_no_more, tell_of_saves
from oomguard._training import Brake, has_time, save_before_leaving

if TYPE_CHECKING:
    from oomguard._training import OnWarning

__all__ = ["MemoryGuard"]

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """The ``Callback`` classes that trainers of this process may ask for."""
    present = [name for name in _PACKAGES if name in sys.modules]
    for name in () if present else _PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.split(".")[0]):
                raise
        else:
            present.append(name)
            break
    if not present:
        raise ImportError("oomguard.lightning needs Lightning 2: pip install 'oomguard[lightning]'")
    return tuple(sys.modules[name].Callback for name in present)


_Base: Any = type("_Base", _bases(), {})


class MemoryGuard(_Base):  # type: ignore[misc]
    """Stops a ``fit`` in good order when memory gets short, and raises when it is too short for that.

    - Level ``warning``, no guard: gives freed memory back; if that does not help, saves to ``save_to`` and sets
      ``trainer.should_stop``. ``fit`` validates, runs its end hooks and returns; :attr:`stopped` is ``"warning"``.
      Lightning goes on until its ``min_epochs`` and ``min_steps``.
    - The guard asks this process to give way, or it got SIGTERM: saves to ``save_to``, then raises ``MemoryCritical``
      or ``StopRequested``. Without ``oomguard.handle_sigterm()`` Lightning itself raises its ``SIGTERMException`` after
      the batch, and this callback saves then; both end the process with code 0.
    - Level ``critical``: raises ``MemoryCritical`` without saving. Lightning calls ``on_exception`` of every callback,
      finalizes the loggers as failed, tears the strategy down and raises it on. (``ModelCheckpoint`` saves in
      ``on_exception`` only if told to, and Lightning builds a checkpoint in RAM before it writes it.)

    ``validate``, ``test`` and ``predict`` only raise. Every checkpoint that the trainer writes while it fits is told to
    the guard (:func:`oomguard.checkpoint`), except those of ``AsyncCheckpointIO``, which are not written yet.

    With several ranks a stop is agreed on at every 16th batch of an epoch; a rank in which memory is critical raises
    alone, and the launcher ends the others.

    A step costs less than a microsecond.

    Args:
        save_to: Checkpoint file, written anew by each stop; continue with ``trainer.fit(..., ckpt_path=save_to)``.
            Without one nothing is saved here, and the checkpoints of other callbacks are what remains.
        on_warning: ``"stop"``, ``"warn"`` (write a line, at most once a minute) or ``"ignore"``.

    Raises:
        ValueError: ``on_warning`` is none of these.
    """

    def __init__(self, save_to: str | os.PathLike[str] | None = None, on_warning: OnWarning = "stop") -> None:
        super().__init__()
        self.save_to = None if save_to is None else os.fspath(save_to)
        self._brake = Brake(on_warning)
        self._saver = None if save_to is None else _save
        self._saved_at = -1

    @property
    def stopped(self) -> str | None:
        """``"warning"`` if this callback ended the last ``fit`` early, in good order; else ``None``."""
        return self._brake.stopped

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begins to watch."""
        self._saved_at = -1
        self._brake.begin(_ranks.several() if stage == "fit" else None)
        if stage == "fit" and not _writes_later(trainer):
            tell_of_saves(trainer, "save_checkpoint")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Raises before the batch takes memory, if there is none."""
        self._brake.check_critical("batch", batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves, stops, raises."""
        if self._brake.ends("batch", batch_idx, self._saver, self, trainer):
            trainer.should_stop = True

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Raises; within ``fit`` it saves first."""
        save = self._saver if trainer.state.fn == "fit" else None
        self._brake.check("validation batch", batch_idx, save, self, trainer)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Raises."""
        self._brake.check("test batch", batch_idx)

    def on_predict_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Raises."""
        self._brake.check("prediction batch", batch_idx)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Saves where Lightning itself leaves because of SIGTERM."""
        wanted = self._saver is not None and trainer.state.fn == "fit" and trainer.received_sigterm
        if wanted and self._saved_at != trainer.global_step and has_time():
            save_before_leaving("SIGTERM", _save, self, trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leaves the trainer as it was."""
        tell_no_more(trainer, "save_checkpoint")


# Not a method: a guard that holds a method of its own lives, with all that it holds, until the next full collection.
def _save(guard: MemoryGuard, trainer: Any) -> None:
    trainer.save_checkpoint(guard.save_to)
    guard._saved_at = trainer.global_step


def _writes_later(trainer: Any) -> bool:
    kinds = type(trainer.strategy.checkpoint_io).__mro__
    return any(kind.__name__ == "AsyncCheckpointIO" for kind in kinds)
