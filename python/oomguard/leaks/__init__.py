"""Why does it grow? Finds the cause of growth that does not come back, and names it.

``examine()`` looks at this process now, ``watch()`` at what a block of code leaves behind. Both try the cheap causes
first, which are the usual ones: freed memory that the allocator keeps, dead objects in cycles, data in the attributes
of Optuna trials, buffers that are not filled yet. ``python -m oomguard.leaks SCRIPT`` watches a whole script.
"""

from __future__ import annotations

from oomguard.leaks._examine import examine
from oomguard.leaks._report import Cause, Report, Step
from oomguard.leaks._watch import Watch, watch

__all__ = ["Cause", "Report", "Step", "Watch", "examine", "watch"]
