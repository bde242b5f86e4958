"""stable-baselines3: ``model.learn(..., callback=oomguard.stable_baselines3.MemoryGuard(save_to="last.zip"))``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

try:
    from stable_baselines3.common import callbacks as _callbacks
except ImportError as error:
    raise ImportError(
        "oomguard.stable_baselines3 needs stable-baselines3 2: pip install 'oomguard[stable-baselines3]'"
    ) from error

import oomguard
from oomguard._saves import replacing, saving
from oomguard._training import Brake

if TYPE_CHECKING:
    from oomguard._training import OnWarning

__all__ = ["CheckpointCallback", "MemoryGuard"]


class MemoryGuard(_callbacks.BaseCallback):  # type: ignore[misc]
    """Stops ``learn`` in good order when memory gets short, and raises when it is too short for that.

    - Level ``warning``, no guard: gives freed memory back; if that does not help, saves to ``save_to`` and makes
      ``learn`` return; :attr:`stopped` is ``"warning"``.
    - The guard asks this process to give way, or it got SIGTERM after ``oomguard.handle_sigterm()``: saves to
      ``save_to``, then raises ``MemoryCritical`` or ``StopRequested``.
    - Level ``critical``: raises ``MemoryCritical`` without saving. stable-baselines3 has no cleanup for any exception:
      ``on_training_end`` is not called; close environments in other processes (``SubprocVecEnv``) yourself, or they
      live until this process ends. The model can still be used and saved.

    It looks at each step of the environments, and before the gradient steps that follow a rollout.
    A step costs less than a microsecond.

    Args:
        save_to: ``NAME.zip``, replaced by each stop in one move; ``NAME_vecnormalize.pkl`` beside it, where the
            environment is a ``VecNormalize``. Without one nothing is saved here.
        on_warning: ``"stop"``, ``"warn"`` (write a line, at most once a minute) or ``"ignore"``.
        save_replay_buffer: Whether ``NAME_replay_buffer.pkl`` is saved as well. It is as large as the buffer.
        verbose: For the base class.

    Raises:
        ValueError: ``save_to`` does not end in ``.zip``, or ``on_warning`` is none of these.
    """

    def __init__(
        self,
        save_to: str | os.PathLike[str] | None = None,
        on_warning: OnWarning = "stop",
        save_replay_buffer: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.save_to = None if save_to is None else os.fspath(save_to)
        if self.save_to is not None and not self.save_to.endswith(".zip"):
            raise ValueError(f"save_to must end in `.zip`, not `{self.save_to}`")
        self.save_replay_buffer = save_replay_buffer
        self._brake = Brake(on_warning)
        self._saver = None if save_to is None else _save

    @property
    def stopped(self) -> str | None:
        """``"warning"`` if this callback ended the last ``learn`` early, in good order; else ``None``."""
        return self._brake.stopped

    def _on_training_start(self) -> None:
        self._brake.begin()

    def _on_step(self) -> bool:
        return not self._brake.ends("step", self.num_timesteps, self._saver, self)

    def _on_rollout_end(self) -> None:
        self._brake.check_critical("step", self.num_timesteps)


# Not a method: a guard that holds a method of its own lives, with its model, until the next full collection.
def _save(guard: MemoryGuard) -> None:
    model, path = guard.model, guard.save_to
    assert path is not None
    stem = path[: -len(".zip")]
    with saving():
        with replacing(path) as partial:
            model.save(partial)
        statistics = model.get_vec_normalize_env()
        if statistics is not None:
            with replacing(f"{stem}_vecnormalize.pkl") as partial:
                statistics.save(partial)
        if guard.save_replay_buffer and getattr(model, "replay_buffer", None) is not None:
            with replacing(f"{stem}_replay_buffer.pkl") as partial:
                model.save_replay_buffer(partial)


class CheckpointCallback(_callbacks.CheckpointCallback):  # type: ignore[misc]
    """stable-baselines3's own ``CheckpointCallback``, with its arguments. Its saves are told to the guard
    (:func:`oomguard.checkpoint`): killing this job is cheap right after one."""

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq:
            return True
        with oomguard.shield():
            goes_on: Any = super()._on_step()
        oomguard.checkpoint()
        return bool(goes_on)
