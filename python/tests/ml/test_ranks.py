"""Several processes that train one model: what one of them wishes."""

from __future__ import annotations

from absence import needs
from training import train

needs("torch")


def test_the_greatest_wish_of_all_ranks_is_every_ranks(tmp_path):
    found = train(
        """
import torch
from oomguard import _ranks
found["alone"] = _ranks.several() is None
def rank(number, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    greatest = _ranks.several()
    seen = [greatest(number), greatest(2 - 2 * number), greatest(0)]
    torch.distributed.get_backend = lambda: "another"
    seen += [greatest(number), greatest(2 - 2 * number), greatest(0)]
    with open(f"{folder}/rank{number}", "w") as file: json.dump(seen, file)
    torch.distributed.destroy_process_group()
torch.multiprocessing.start_processes(rank, (os.getcwd(),), nprocs=2, start_method="fork")
found["ranks"] = [json.load(open(f"rank{number}")) for number in (0, 1)]
""",
        tmp_path,
    )
    assert found["alone"] is True
    assert found["ranks"] == [[1, 2, 0, 1, 2, 0]] * 2
