"""For the tests of ``oomguard.replay`` that need torch."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import pytest


def torch_or_skip() -> Any:
    """torch; skips the module aloud without it, and fails instead where ``OOMGUARD_REQUIRE`` names ``torch``."""
    try:
        import torch
    except ImportError as error:
        absent("torch", str(error))
    torch.set_num_threads(1)
    return torch


def absent(what: str, why: str) -> NoReturn:
    """Skips the test or module, aloud; fails it where ``OOMGUARD_REQUIRE`` names ``what``."""
    if what in os.environ.get("OOMGUARD_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"OOMGUARD_REQUIRE names {what}: {why}", pytrace=False)
    pytest.skip(f"needs {what}: {why}", allow_module_level=True)
