"""``oomguard.lightning.MemoryGuard`` in trainers of both packages."""

from __future__ import annotations

import pytest
from absence import needs
from training import BEGINNING, CRITICAL, SHORT, finish, start, train

needs("lightning", "torch")

MODEL = """
import importlib, torch
PACKAGE = os.environ.get("PACKAGE", "lightning.pytorch")
pl = importlib.import_module(PACKAGE)
logging.getLogger(PACKAGE).setLevel(logging.ERROR)
from oomguard.lightning import MemoryGuard
class Model(pl.LightningModule):
    def __init__(self, at=None, then=None):
        super().__init__(); self.layer = torch.nn.Linear(4, 1); self.at, self.then = at, then
    def training_step(self, batch, index):
        if index == self.at: self.then()
        return self.layer(batch[0]).pow(2).mean()
    def forward(self, batch):
        return self.layer(batch[0])
    def validation_step(self, batch, index):
        if self.at == f"validation {index}" and not self.trainer.sanity_checking: self.then()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
def data():
    rows = torch.utils.data.TensorDataset(torch.ones(64, 4))
    return torch.utils.data.DataLoader(rows, batch_size=2)
def trainer(guard, *more, **options):
    options = {"max_epochs": 2, "limit_val_batches": 0, **options}
    return pl.Trainer(callbacks=[guard, *more], accelerator="cpu", logger=False, enable_checkpointing=bool(more),
                      enable_progress_bar=False, enable_model_summary=False, **options)
"""


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_warning_saves_and_ends_the_fit_in_good_order(tmp_path, package):
    needs(package.partition(".")[0])
    found = train(
        MODEL
        + """
guard = MemoryGuard(save_to="stop.ckpt")
t = trainer(guard, max_steps=40)
t.fit(Model(), data())
found["stopped"], found["steps"], found["told"], found["log"] = guard.stopped, t.global_step, len(told), log[:]
found["left"] = "save_checkpoint" in vars(t)
found["saved"] = torch.load("stop.ckpt", weights_only=False)["global_step"]

calm = MemoryGuard(on_warning="ignore")
t = trainer(calm, max_steps=40)
t.fit(Model(), data(), ckpt_path="stop.ckpt")
found["resumed"], found["ignored"] = t.global_step, calm.stopped

del log[:]
loud = MemoryGuard("never.ckpt", on_warning="warn")
t = trainer(loud, max_steps=30)
t.fit(Model(), data())
found["warned"], found["went on to"], found["never"] = log[:], t.global_step, os.path.exists("never.ckpt")
found["base"] = isinstance(guard, pl.Callback)

del told[:]
bound = MemoryGuard("bound.ckpt")
t = trainer(bound, min_steps=10, min_epochs=0)
t.fit(Model(), data())
found["bound"] = [t.global_step, len(told), bound.stopped]
""",
        tmp_path,
        PACKAGE=package,
        **SHORT,
    )
    assert found["stopped"] == "warning"
    assert found["steps"] == found["saved"] == 1
    assert found["told"] == 1, "the guard heard of the save"
    assert found["left"] is False
    assert "saved, and stops in good order" in found["log"][0]
    assert (found["resumed"], found["ignored"]) == (40, None), "the checkpoint is a whole one"
    assert (found["went on to"], found["never"]) == (30, False)
    assert len(found["warned"]) == 1
    assert "Memory warning [batch 0]" in found["warned"][0]
    assert found["base"] is True
    assert found["bound"] == [10, 1, "warning"], "Lightning's own minimum holds, and it is saved once"


def test_critical_raises_and_lightning_cleans_up(tmp_path):
    found = train(
        MODEL
        + """
class Sees(pl.Callback):
    def on_exception(self, trainer, module, error): found["on_exception"] = type(error).__name__
    def on_train_end(self, trainer, module): found["on_train_end"] = True
guard = MemoryGuard("stop.ckpt")
t = trainer(guard, Sees())
found["raised"] = raised(lambda: t.fit(Model(), data()))
found["status"], found["steps"], found["saved"] = str(t.state.status), t.global_step, os.path.exists("stop.ckpt")
found["in predict"] = raised(lambda: trainer(MemoryGuard()).predict(Model(), data()))
found["in validate"] = raised(lambda: trainer(MemoryGuard(), limit_val_batches=1).validate(Model(), data()))
""",
        tmp_path,
        **CRITICAL,
    )
    assert found["raised"].startswith("MemoryCritical: stop to give memory back [batch 0]: reserve")
    assert found["on_exception"] == "MemoryCritical"
    assert "on_train_end" not in found
    assert (found["steps"], found["saved"]) == (0, False)
    assert "INTERRUPTED" in found["status"].upper()
    assert "[prediction batch 0]" in found["in predict"]
    assert "[validation batch 0]" in found["in validate"]


def test_under_a_guard_only_the_chosen_process_stops_and_it_saves_first(tmp_path, page):
    found = train(
        MODEL
        + """
def fit(name, at=None, then=None, save_to="stop.ckpt", **options):
    page(stop=0, level=0)
    guard = MemoryGuard(save_to)
    t = trainer(guard, max_steps=20, **options)
    del log[:], told[:]
    error = raised(lambda: t.fit(Model(at, then), data(), data()))
    found[name] = [error, t.global_step, guard.stopped, len(told), bool(save_to) and os.path.exists(save_to), log[:]]
    if save_to and os.path.exists(save_to): os.unlink(save_to)
assert oomguard._core.snapshot().guarded
fit("warning", 3, lambda: page(level=1, available=1))
fit("critical", 3, lambda: page(level=2, available=1))
fit("prune", 3, lambda: page(stop=1, cause=4))
fit("terminate", 3, lambda: page(stop=2, cause=8))
fit("no time", 3, lambda: page(stop=1, cause=3, level=2))
fit("in validation", "validation 2", lambda: page(stop=1, cause=4), limit_val_batches=5, val_check_interval=4)
fit("not saved", 3, lambda: page(stop=1, cause=4), save_to="/proc/no/stop.ckpt")
""",
        tmp_path,
        OOMGUARD_PAGE=str(page.path),
    )
    error, steps, stopped, told, saved, log = found["warning"]
    assert (error, steps, stopped, told, saved) == (None, 20, None, 0, False)
    assert len(log) == 1
    assert "the guard decides who stops" in log[0]
    assert found["critical"][:2] == [None, 20], "the guard chose another one"
    assert "MemoryCritical: stop to give memory back [batch 3]: limit" in found["prune"][0]
    assert found["prune"][1:5] == [4, None, 1, True]
    assert "StopRequested" in found["terminate"][0]
    assert found["terminate"][1:5] == [4, None, 1, True]
    assert "MemoryCritical" in found["no time"][0]
    assert found["no time"][3:5] == [0, False]
    assert "[validation batch 3]" in found["in validation"][0]
    assert found["in validation"][4] is True
    assert "MemoryCritical" in found["not saved"][0], "an unwritable path does not keep it from leaving"
    assert "could not save before the stop [batch 3]" in found["not saved"][5][0]


@pytest.mark.parametrize("handled", [False, True])
def test_sigterm_saves_and_ends_the_process_with_0(tmp_path, handled):
    code = MODEL + (
        ("oomguard.handle_sigterm()\n" if handled else "")
        + """
class Sees(pl.Callback):
    def on_exception(self, trainer, module, error): print("left by", type(error).__name__, flush=True)
trainer(MemoryGuard("stop.ckpt"), Sees()).fit(Model(5, lambda: os.kill(os.getpid(), signal.SIGTERM)), data())
print("went on")
"""
    )
    process = start(BEGINNING + code, tmp_path)
    out, err = finish(process)
    assert process.returncode == 0, err[-4000:]
    assert out.splitlines() == [f"left by {'StopRequested' if handled else 'SIGTERMException'}"]
    import torch

    saved = torch.load(tmp_path / "stop.ckpt", weights_only=False)
    assert saved["global_step"] == 6


def test_other_checkpoints_are_told_to_the_guard_and_the_model_is_freed_without_a_collection(tmp_path):
    found = train(
        MODEL
        + """
import copy
from oomguard._saves import tell_of_saves
guard = MemoryGuard("stop.ckpt")
t = trainer(guard, pl.callbacks.ModelCheckpoint(dirpath=".", every_n_train_steps=8, save_top_k=-1))
t.fit(Model(), data())
found["told"], found["files"] = len(told), len([n for n in os.listdir() if n.endswith(".ckpt")])
class Saves:
    def save(self, path): found.setdefault("by", []).append(path)
owner = Saves()
tell_of_saves(owner, "save")
owner.save("a")
again = copy.deepcopy(owner)
found["copy has its own"] = again.save._owner() is again
held = [owner]; del owner
found["freed"] = freed(held)
held = [MemoryGuard("other.ckpt")]
found["guard freed"] = freed(held)
""",
        tmp_path,
    )
    assert found["told"] == found["files"] == 8
    assert found["by"] == ["a"]
    assert found["copy has its own"] is True
    assert found["freed"] is found["guard freed"] is True


def test_ranks_stop_together(tmp_path):
    """Two ranks, of which only the second is short of memory: alone it would wait for the first one for ever."""
    found = train(
        MODEL
        + """
class Short(pl.Callback):
    def setup(self, trainer, module, stage):
        os.environ.update(OOMGUARD_RESERVE="1M", OOMGUARD_WARNING="1024T" if trainer.global_rank == 1 else "2M")
    def on_train_end(self, trainer, module):
        with open(f"rank{trainer.global_rank}", "w") as file:
            print(trainer.global_step, oomguard._core.level(), guard.stopped, len(told), file=file)
guard = MemoryGuard("stop.ckpt")
t = pl.Trainer(callbacks=[Short(), guard], accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=40,
               max_epochs=9, logger=False, enable_checkpointing=False, enable_progress_bar=False,
               enable_model_summary=False)
t.fit(Model(), data())
found["ranks"] = [open(f"rank{n}").read() for n in (0, 1)]
found["saved"] = torch.load("stop.ckpt", weights_only=False)["global_step"]
""",
        tmp_path,
    )
    assert found["ranks"] == ["1 normal warning 1\n", "1 warning warning 1\n"]
    assert found["saved"] == 1


def test_a_wrong_setting_is_named():
    from oomguard.lightning import MemoryGuard

    with pytest.raises(ValueError, match="on_warning must be `stop`, `warn` or `ignore`, not `panic`"):
        MemoryGuard(on_warning="panic")
