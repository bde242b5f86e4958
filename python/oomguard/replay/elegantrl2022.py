"""``ReplayBuffer`` and ``ReplayBufferList`` of ElegantRL 2022 (FinRL, FinRL_Crypto) on one mapping each. Needs torch.

from oomguard.replay.elegantrl2022 import ReplayBuffer, ReplayBufferList
"""

from __future__ import annotations

from oomguard.replay._off_policy_2022 import ReplayBuffer
from oomguard.replay._on_policy_2022 import ReplayBufferList

__all__ = ["ReplayBuffer", "ReplayBufferList"]
