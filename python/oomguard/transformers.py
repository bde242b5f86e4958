"""Hugging Face transformers: ``Trainer(..., callbacks=[oomguard.transformers.MemoryGuard()])``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from transformers import TrainerCallback as _TrainerCallback
except ImportError as error:
    raise ImportError(
        "oomguard.transformers needs transformers with torch: pip install 'oomguard[transformers]'"
    ) from error

import oomguard
from oomguard import _core, _ranks
from oomguard._training import Brake, Wish, leave

if TYPE_CHECKING:
    from oomguard._training import OnWarning

__all__ = ["MemoryGuard"]


class MemoryGuard(_TrainerCallback):  # type: ignore[misc]
    """Stops a training in good order when memory gets short, and raises when it is too short for that.

    - Level ``warning``, no guard: gives freed memory back; if that does not help, sets ``control.should_save`` and
      ``control.should_training_stop``. The trainer saves ``checkpoint-N`` in its ``output_dir`` and returns;
      :attr:`stopped` is ``"warning"``. Continue with ``trainer.train(resume_from_checkpoint=True)``.
    - The guard asks this process to give way, or it got SIGTERM after ``oomguard.handle_sigterm()``: the trainer saves
      at the end of the step, then ``MemoryCritical`` or ``StopRequested`` is raised. In an evaluation nothing can be
      saved, so it is raised at once.
    - Level ``critical``: raises ``MemoryCritical`` without saving. The trainer has no cleanup for any exception:
      ``on_train_end`` is not called, and ``auto_find_batch_size`` does not try again.

    It is looked at each step and substep, and at each step of an evaluation. Every checkpoint that the trainer writes
    is told to the guard (:func:`oomguard.checkpoint`). With ``save_strategy="best"`` an evaluation at the very step
    decides whether that step is saved.

    With several ranks a stop is agreed on at every 16th step; a rank in which memory is critical raises alone, and the
    launcher ends the others.

    A step costs less than a microsecond.

    Args:
        save: Whether a stop saves a checkpoint first.
        on_warning: ``"stop"``, ``"warn"`` (write a line, at most once a minute) or ``"ignore"``.

    Raises:
        ValueError: ``on_warning`` is none of these.
    """

    def __init__(self, save: bool = True, on_warning: OnWarning = "stop") -> None:
        self.save = save
        self._brake = Brake(on_warning)
        self._leaving: str | None = None
        self._training = False

    @property
    def stopped(self) -> str | None:
        """``"warning"`` if this callback ended the last training early, in good order; else ``None``."""
        return self._brake.stopped

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins to watch."""
        self._leaving = None
        self._training = True
        self._brake.begin(_ranks.several())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluations from now on belong to no training."""
        self._training = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises before the step takes memory, if there is none; or because the save of the last step did not come."""
        if self._leaving is not None:
            self._leave()
        self._brake.check_critical("step", state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises if memory is critical."""
        self._brake.check_critical("step", state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the trainer to save and to stop."""
        wish = self._brake.wish("step", state.global_step)
        if wish is Wish.GO_ON:
            return
        context = f"step {state.global_step}"
        if self.save:
            control.should_save = True
        if wish is Wish.STOP:
            control.should_training_stop = True
            self._brake.stop(context, self.save)
            return
        self._leaving = context
        if not self.save:
            self._leave()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells the guard; raises, if that was to come after the save."""
        oomguard.checkpoint()
        if self._leaving is not None:
            self._leave()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises."""
        if self._training:
            self._brake.check("evaluation after step", state.global_step)
        else:
            _core.check("evaluation")

    def _leave(self) -> None:
        context, self._leaving = self._leaving, None
        leave(context or "", at_all_events=self._brake.together)
