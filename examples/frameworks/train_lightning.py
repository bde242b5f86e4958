"""A small Lightning training that stops in good order when memory gets short, and goes on where it stopped."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import LightningModule, Trainer

from oomguard.lightning import MemoryGuard


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.layer(batch[0]).pow(2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def main() -> None:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(256, 8)), batch_size=8)
    guard = MemoryGuard(save_to="last.ckpt")
    trainer = Trainer(max_epochs=2, callbacks=[guard], accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(Model(), data, ckpt_path="last.ckpt" if os.path.exists("last.ckpt") else None)
    print(f"{trainer.global_step} steps, stopped by: {guard.stopped}")


if __name__ == "__main__":
    main()
