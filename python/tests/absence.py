"""What a test needs and this machine may lack: then it is skipped aloud, and fails where ``OOMGUARD_REQUIRE`` (words
with commas between) names it."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NoReturn

import pytest


def absent(word: str, why: str) -> NoReturn:
    """Skips the test or the module; fails it where ``OOMGUARD_REQUIRE`` has ``word``."""
    if word in os.environ.get("OOMGUARD_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"OOMGUARD_REQUIRE names {word}: {why}", pytrace=False)
    pytest.skip(f"no {word}: {why}", allow_module_level=True)


def needs(*modules: str) -> None:
    """Goes on only where all of ``modules`` are installed."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            absent(name, "it is not installed")


def torch_or_skip() -> Any:
    """torch, with one thread."""
    needs("torch")
    import torch

    torch.set_num_threads(1)
    return torch
