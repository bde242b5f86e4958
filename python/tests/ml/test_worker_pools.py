"""``oomguard.worker_init`` in joblib's loky and in PyTorch's DataLoader."""

from __future__ import annotations

import pytest
from absence import needs
from pools import NO_CGROUP, cgroup_parent, run_script


@pytest.fixture(scope="module")
def parent():
    yield from cgroup_parent()


JOBLIB = """
import joblib
if __name__ == "__main__":
    limit = oomguard.worker_init(limit=LIMIT)
    run = lambda work, n: joblib.Parallel(n_jobs=2, backend="loky", initializer=limit)(
        joblib.delayed(work)(i) for i in range(n))
    found = {"small": run(small, 4), "spike": told(limit, lambda: run(spike, 1)), "after": run(small, 2)}
    print(json.dumps(found))
"""


def test_a_loky_worker_beyond_its_limit_is_killed_and_the_next_parallel_works(tmp_path, parent):
    needs("joblib")
    found = run_script(JOBLIB, tmp_path, OOMGUARD_CGROUP_PARENT=parent)
    assert found["small"] == [[1 << 20, True, None]] * 4
    name, hint, _ = found["spike"]
    assert name == "TerminatedWorkerError"
    assert hint.startswith("the kernel killed a worker (pid ")
    assert found["after"] == [[1 << 20, True, None]] * 2


def test_without_a_cgroup_a_loky_worker_raises_memory_error(tmp_path):
    needs("joblib")
    found = run_script(JOBLIB, tmp_path, OOMGUARD_CGROUP_PARENT=NO_CGROUP)
    name, hint, _ = found["spike"]
    assert name == "MemoryError"
    assert hint.startswith("its worker met its limit of 0.3 GB (RLIMIT_DATA)")
    assert found["after"] == [[1 << 20, True, None]] * 2


LOADER = """
import torch
LIMIT = 600 << 20
class Rows(torch.utils.data.Dataset):
    def __init__(self, spikes): self.spikes = spikes
    def __len__(self): return 8
    def __getitem__(self, index):
        oomguard.check()
        if index == 5 and self.spikes: spike()
        return torch.tensor(float(index))
def loader(limit, spikes, workers=2):
    return torch.utils.data.DataLoader(Rows(spikes), batch_size=2, num_workers=workers, worker_init_fn=limit,
                                       multiprocessing_context=METHOD)
if __name__ == "__main__":
    oomguard.handle_sigterm()
    limit = oomguard.worker_init(limit=LIMIT)
    read = lambda spikes: [batch.tolist() for batch in loader(limit, spikes)]
    found = {"calm": read(False), "spike": told(limit, lambda: read(True)), "after": len(read(False))}
    print(json.dumps(found))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_dataloader_worker_beyond_its_limit_is_killed_alone(tmp_path, parent, method):
    needs("torch")
    code = LOADER.replace("METHOD", repr(method))
    found = run_script(code, tmp_path, OOMGUARD_CGROUP_PARENT=parent)
    assert found["calm"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    name, hint, _ = found["spike"]
    # "DataLoader worker (pid ...) is killed by signal", or the parent was just fetching a tensor of the dead worker.
    assert name in ("RuntimeError", "EOFError", "ConnectionResetError")
    assert hint.startswith("the kernel killed a worker (pid ")
    assert found["after"] == 4


def test_without_a_cgroup_a_dataloader_worker_raises_memory_error(tmp_path):
    needs("torch")
    code = LOADER.replace("METHOD", repr("fork"))
    found = run_script(code, tmp_path, OOMGUARD_CGROUP_PARENT=NO_CGROUP)
    name, hint, _ = found["spike"]
    assert name == "MemoryError"
    assert hint.startswith("its worker met its limit of 0.6 GB (RLIMIT_DATA)")
    assert found["after"] == 4
