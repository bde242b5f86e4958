"""A DataLoader whose workers are each held to a limit."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

import oomguard


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((8,), float(index))


def main() -> None:
    limit = oomguard.worker_init(limit="2GiB")
    with limit:
        batches = [batch.sum().item() for batch in DataLoader(Rows(), 4, num_workers=2, worker_init_fn=limit)]
    print(f"{len(batches)} batches, {sum(batches):.0f}")


if __name__ == "__main__":
    main()
