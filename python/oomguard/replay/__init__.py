"""Replay buffers that stay flat: one mapping of a fixed size, written in place. Needs NumPy; torch only where asked.

    from oomguard.replay import Buffer, Column

    buffer = Buffer(100_000, {"state": 17, "action": 6, "reward": (), "done": Column((), "bool")})
    buffer.push(state=state, action=action, reward=1.0, done=False)
    batch = buffer.sample(256, following=("state",))

An API that is handed finished trajectories holds at least three times its payload at the peak (the old trajectory, the
new one, the buffer); where rows are written into place (:meth:`Buffer.push`, :meth:`Buffer.writer`) it is held once.
``python/bench/replay_cost.py`` measures it.

``oomguard.replay.elegantrl`` and ``oomguard.replay.elegantrl2022`` are drop-ins for two generations of ElegantRL.
"""

from __future__ import annotations

try:
    import numpy as _numpy  # noqa: F401
except ImportError as error:
    raise ImportError("oomguard.replay needs NumPy: pip install 'oomguard[replay]'") from error

from oomguard.replay._buffer import Buffer
from oomguard.replay._columns import Column
from oomguard.replay._gather import Batch
from oomguard.replay._writer import Writer

__all__ = ["Batch", "Buffer", "Column", "Writer"]
