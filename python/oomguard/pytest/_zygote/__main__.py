"""``python -m oomguard.pytest._zygote``."""

from __future__ import annotations

from oomguard.pytest._zygote._start import main

if __name__ == "__main__":
    main()
