"""A small transformers training that stops in good order when memory gets short, and goes on where it stopped."""

from __future__ import annotations

import os

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import oomguard
from oomguard.transformers import MemoryGuard


def main() -> None:
    oomguard.handle_sigterm()
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16)
    rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor(i % 2)} for i in range(64)]
    args = TrainingArguments(output_dir="out", max_steps=20, use_cpu=True, report_to="none")
    guard = MemoryGuard()
    trainer = Trainer(BertForSequenceClassification(config), args, train_dataset=rows, callbacks=[guard])
    last = get_last_checkpoint("out") if os.path.isdir("out") else None
    trainer.train(resume_from_checkpoint=last)
    print(f"{trainer.state.global_step} steps, stopped by: {guard.stopped}")


if __name__ == "__main__":
    main()
