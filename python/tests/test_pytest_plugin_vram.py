"""VRAM of a test, with a stand-in for ``torch.cuda`` that counts as torch's allocator does. On a machine with a GPU the
last test asks the real one."""

from __future__ import annotations

from absence import absent, needs

TORCH = """
import sys, types
class Cuda(types.ModuleType):
    started, held, highest = False, 0, 0
    def is_initialized(self): return self.started
    def device_count(self): return 1
    def memory_allocated(self, device): return self.held
    def max_memory_allocated(self, device): return self.highest
    def reset_peak_memory_stats(self, device): self.highest = self.held
    def mem_get_info(self): return (3 << 30) - self.held, 4 << 30
    def take(self, mib):
        self.started = True
        self.held += mib << 20
        self.highest = max(self.highest, self.held)
sys.modules["torch"] = torch = types.ModuleType("torch")
torch.cuda = Cuda("torch.cuda")
"""
TESTS = """
import sys, pytest
cuda = sys.modules["torch"].cuda
def test_nothing_yet(): pass
def test_spike(): cuda.take(300); cuda.take(-300)
def test_keeps(): cuda.take(100)
@pytest.mark.oomguard(vram="200MiB")
def test_over(): cuda.take(250); cuda.take(-250)
@pytest.mark.oomguard(vram="200MiB")
def test_under(): cuda.take(150); cuda.take(-150)
"""


def test_what_torch_allocates_is_told_for_each_test(inner):
    inner.write(conftest=TORCH, test_a=TESTS)
    tests = {name.split("_", 2)[2]: test for name, test in inner.report().items()}
    told = {
        name: [
            None if test[f"vram_{what}"] is None else test[f"vram_{what}"] >> 20 for what in ("before", "after", "peak")
        ]
        for name, test in tests.items()
    }
    assert told == {
        "nothing_yet": [None, None, None],
        "spike": [0, 0, 300],
        "keeps": [0, 100, 100],
        "over": [100, 100, 350],
        "under": [100, 100, 250],
    }
    assert tests["over"]["outcome"] == "failed"
    assert tests["under"]["outcome"] == "passed"


def test_the_message_and_the_summary_speak_of_vram(inner):
    inner.write(conftest=TORCH, test_a=TESTS)
    out = inner.run("--oomguard").out
    assert "VRAM limit exceeded: the test grew by 250.0 MiB at its peak, its limit is 200.0 MiB" in out
    assert "before: 100.0 MiB (allocated by torch.cuda in this process)" in out
    assert "VRAM OVER START" in out
    assert "test_a.py::test_spike: before" in out
    assert ", VRAM peak +300.0 MiB" in out


def test_torch_is_asked_for_the_gpu_where_it_is_used(inner):
    inner.write(conftest=TORCH, test_a="import sys\ndef test_a(): sys.modules['torch'].cuda.take(1024)")
    inner.run("--oomguard-profile=p.txt", env={"PATH": "/no/such/folder"})
    before, after = (inner.folder / "p.txt").read_text().splitlines()
    assert " | VRAM: unknown | " in before
    assert " | VRAM: 50.0% | " in after


def test_a_vram_limit_that_cannot_be_checked_is_said(inner):
    inner.write(test_a="import pytest\n@pytest.mark.oomguard(vram='1G')\ndef test_a(): pass")
    test = inner.report("--oomguard")["test_a.py::test_a"]
    assert test["outcome"] == "passed"
    assert test["unknown"] == {"vram": "torch does not use CUDA in this process"}
    assert "unknown for 1 of 1 tests: vram: torch does not use CUDA in this process" in inner.run("--oomguard").out


def test_a_real_gpu(inner):
    needs("torch")
    import torch

    if not torch.cuda.is_available():
        absent("cuda", "torch finds no GPU")
    inner.write(
        test_a="""
import pytest, torch
def test_spike(): torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
@pytest.mark.oomguard(vram="64MiB")
def test_over(): torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
"""
    )
    tests = inner.report("--oomguard")
    spike = tests["test_a.py::test_spike"]
    assert (spike["vram_before"], spike["vram_after"], spike["vram_peak"]) == (0, 0, 256 << 20)
    assert tests["test_a.py::test_over"]["outcome"] == "failed"
