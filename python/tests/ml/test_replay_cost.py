"""The promise of ``python/bench/replay_cost.py``, kept small: rows written in place cost their payload once."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from absence import torch_or_skip

torch_or_skip()

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "replay_cost.py"


def cost(way):
    """20 rounds of a payload of 20 MiB, in a fresh process: what one process measures depends on what it did before."""
    command = [sys.executable, str(BENCH), "--way", way, "--payload", "20", "--rounds", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", ["push(), row by row", "writer(), in place"])
def test_rows_written_in_place_cost_their_payload_once(way):
    found = cost(way)
    assert 0.98 <= found["peak_ratio"] <= 1.05
    assert abs(found["drift_bytes"]) <= 1 << 20


def test_the_measure_tells_a_buffer_that_copies():
    assert cost("torch.cat, a tensor a column")["peak_ratio"] > 3
