"""The cgroups that tests make: named after their process, looked for in every hierarchy."""

from __future__ import annotations

import os
import pathlib

ROOT = pathlib.Path("/sys/fs/cgroup")
BELOW = os.environ.get("OOMGUARD_CGROUP_PARENT", "").rstrip("/")
"""Where whoever runs the tests wants their cgroups: others may have some there, too."""
HIERARCHIES = [ROOT / "memory", ROOT / "unified", ROOT / "freezer", ROOT]
"""v1's memory, v2 beside it, v1's freezer; v2 alone."""


def parent_of(subject: str) -> str:
    """A parent of this process's own, relative to a hierarchy's root."""
    return f"{BELOW}/oomguard-test-{subject}-{os.getpid()}"


def folders(parent: str) -> list[pathlib.Path]:
    """What is there of ``parent`` and below it in all hierarchies, deepest first."""
    tops = (f"{root}{parent}" for root in HIERARCHIES)
    return [pathlib.Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def remove(parent: str) -> None:
    """Removes what no process is in any more."""
    assert parent.startswith("/oomguard-test"), f"{parent} is not a test's"
    for folder in folders(parent):
        folder.rmdir()


def left() -> list[str]:
    """The parents of this process that are there."""
    mine = f"{BELOW.lstrip('/')}/oomguard-test-*-{os.getpid()}".lstrip("/")
    return sorted({f"{BELOW}/{path.name}" for root in HIERARCHIES for path in root.glob(mine)})
