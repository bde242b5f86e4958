"""``oomguard.transformers.MemoryGuard`` in a real ``Trainer`` with a small BERT."""

from __future__ import annotations

import pytest
from absence import needs
from training import BEGINNING, CRITICAL, SHORT, finish, start, train

needs("transformers", "torch", "accelerate")

MODEL = """
import torch, transformers
transformers.logging.set_verbosity_error()
from oomguard.transformers import MemoryGuard
config = transformers.BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                 intermediate_size=8, max_position_embeddings=8, num_labels=2)
rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor(i % 2)} for i in range(64)]
class At(transformers.TrainerCallback):
    def __init__(self, step=None, then=None, hook="on_step_end"):
        self.step, self.then = step, then
        setattr(self, hook, self.see)
    def see(self, args, state, control, **more):
        if state.global_step == self.step and self.then: self.then()
def trainer(guard, *more, out="out", **options):
    options = {"max_steps": 20, "per_device_train_batch_size": 2, "save_strategy": "no", **options}
    args = transformers.TrainingArguments(output_dir=out, use_cpu=True, report_to=[], disable_tqdm=True,
                                          logging_strategy="no", **options)
    return transformers.Trainer(transformers.BertForSequenceClassification(config), args, train_dataset=rows,
                                eval_dataset=rows[:8], callbacks=[*more, guard])
def saved(out="out"):
    return sorted(os.listdir(out)) if os.path.isdir(out) else []
"""


def test_a_warning_saves_and_ends_the_training_in_good_order(tmp_path):
    found = train(
        MODEL
        + """
class Sees(transformers.TrainerCallback):
    def on_train_end(self, *a, **k): found["on_train_end"] = True
guard = MemoryGuard()
t = trainer(guard, Sees())
t.train()
found["stopped"], found["steps"], found["told"], found["saved"] = guard.stopped, t.state.global_step, len(told), saved()
found["log"] = log[:]
calm = MemoryGuard(on_warning="ignore")
t = trainer(calm)
t.train(resume_from_checkpoint=True)
found["resumed"], found["ignored"] = t.state.global_step, calm.stopped
del log[:]
loud = MemoryGuard(on_warning="warn")
t = trainer(loud, out="loud")
t.train()
found["loud"] = [t.state.global_step, saved("loud"), log[:]]
quick = MemoryGuard(save=False)
t = trainer(quick, out="quick", gradient_accumulation_steps=2)
t.train()
found["unsaved"] = [t.state.global_step, saved("quick"), quick.stopped]
""",
        tmp_path,
        **SHORT,
    )
    assert (found["stopped"], found["steps"], found["saved"]) == ("warning", 1, ["checkpoint-1"])
    assert found["told"] == 1
    assert found["on_train_end"] is True
    assert "Memory warning [step 1]" in found["log"][0]
    assert (found["resumed"], found["ignored"]) == (20, None), "the checkpoint is a whole one"
    steps, saved, said = found["loud"]
    assert (steps, saved, len(said)) == (20, [], 1)
    assert found["unsaved"] == [1, [], "warning"]


def test_critical_raises_without_saving(tmp_path):
    found = train(
        MODEL
        + """
class Sees(transformers.TrainerCallback):
    def on_train_end(self, *a, **k): found["on_train_end"] = True
t = trainer(MemoryGuard(), Sees(), auto_find_batch_size=True)
found["raised"], found["saved"] = raised(t.train), saved()
found["evaluation"] = raised(trainer(MemoryGuard()).evaluate)
""",
        tmp_path,
        **CRITICAL,
    )
    assert found["raised"].startswith("MemoryCritical: stop to give memory back [step 0]: reserve")
    assert found["saved"] == []
    assert "on_train_end" not in found
    assert "MemoryCritical" in found["evaluation"]


def test_under_a_guard_only_the_chosen_process_stops_and_it_saves_first(tmp_path, page):
    found = train(
        MODEL
        + """
def fit(name, then, *more, **options):
    page(stop=0, level=0)
    del log[:], told[:]
    guard = MemoryGuard()
    t = trainer(guard, At(3, then, options.pop("hook", "on_step_end")), *more, out=name, **options)
    error = raised(t.train)
    found[name] = [error, t.state.global_step, guard.stopped, len(told), saved(name), log[:]]
assert oomguard._core.snapshot().guarded
fit("warning", lambda: page(level=1, available=1))
fit("critical", lambda: page(level=2, available=1))
fit("prune", lambda: page(stop=1, cause=4))
fit("terminate", lambda: page(stop=2, cause=8))
fit("no time", lambda: page(stop=1, cause=3, level=2))
fit("due anyway", lambda: page(stop=1, cause=4), save_strategy="steps", save_steps=3)
fit("taken back", lambda: page(stop=1, cause=4), At(3, lambda: page(stop=0), "on_save"))
fit("in evaluation", lambda: page(stop=1, cause=4), hook="on_prediction_step", eval_strategy="steps", eval_steps=3)
""",
        tmp_path,
        OOMGUARD_PAGE=str(page.path),
    )
    error, steps, stopped, told, saved, log = found["warning"]
    assert (error, steps, stopped, told, saved) == (None, 20, None, 0, [])
    assert "the guard decides who stops" in log[0]
    assert found["critical"][:2] == [None, 20], "the guard chose another one"
    assert "MemoryCritical: stop to give memory back [step 3]: limit" in found["prune"][0]
    assert found["prune"][1:5] == [3, None, 1, ["checkpoint-3"]]
    assert "StopRequested" in found["terminate"][0]
    assert found["terminate"][4] == ["checkpoint-3"]
    assert "MemoryCritical" in found["no time"][0]
    assert found["no time"][4] == []
    assert found["due anyway"][3:5] == [1, ["checkpoint-3"]], "saved once"
    assert found["taken back"][:5] == [None, 20, None, 1, ["checkpoint-3"]]
    assert "MemoryCritical" in found["in evaluation"][0]


def test_sigterm_saves_and_ends_the_process_with_0(tmp_path):
    code = """
oomguard.handle_sigterm()
trainer(MemoryGuard(), At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))).train()
print("went on")
"""
    process = start(BEGINNING + MODEL + code, tmp_path)
    out, err = finish(process)
    assert (process.returncode, out) == (0, ""), err[-4000:]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-4"]
    assert (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").exists()


def test_a_wrong_setting_is_named():
    from oomguard.transformers import MemoryGuard

    with pytest.raises(ValueError, match="not `panic`"):
        MemoryGuard(on_warning="panic")
