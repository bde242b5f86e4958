"""``oomguard.keras.MemoryGuard`` in real fits of a small model."""

from __future__ import annotations

import pytest
from absence import needs
from training import BEGINNING, CRITICAL, SHORT, finish, start, train

needs("keras", "torch")

MODEL = """
import numpy, keras
from oomguard.keras import MemoryGuard
x, y = numpy.ones((64, 4), "float32"), numpy.zeros((64, 1), "float32")
def model():
    made = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    return made
class At(keras.callbacks.Callback):
    def __init__(self, batch, then, hook="on_train_batch_end"):
        super().__init__()
        self.seen = []
        def see(index, logs=None):
            self.seen.append(index)
            if index == batch: then()
        setattr(self, hook, see)
class Counts(keras.callbacks.Callback):
    def on_train_begin(self, logs=None): self.batches, self.ended = 0, False
    def on_train_batch_end(self, batch, logs=None): self.batches += 1
    def on_train_end(self, logs=None): self.ended = True
def fit(m, *callbacks, **options):
    counts = Counts()
    options = {"batch_size": 2, "epochs": 1, **options}
    error = raised(lambda: m.fit(x, y, verbose=0, callbacks=[*callbacks, counts], **options))
    return [error, counts.batches, counts.ended]
"""


def test_a_warning_saves_and_ends_the_fit_in_good_order(tmp_path):
    found = train(
        MODEL
        + """
m = model()
guard = MemoryGuard("new/stop.keras")
found["fit"], found["stopped"], found["told"], found["log"] = fit(m, guard, epochs=3), guard.stopped, len(told), log[:]
found["files"], found["left"] = os.listdir("new"), [n for n in ("save", "save_weights") if n in vars(m)]
again = keras.saving.load_model("new/stop.keras")
found["optimizer"] = again.optimizer is not None and len(again.optimizer.variables) > 2
found["ignored"] = fit(again, MemoryGuard(on_warning="ignore"))
del log[:]
found["warned"] = [fit(model(), MemoryGuard("never.keras", on_warning="warn")), os.path.exists("never.keras"), log[:]]
weights = MemoryGuard("stop.weights.h5")
fit(m, weights)
m.load_weights("stop.weights.h5")
found["weights"] = os.path.exists("stop.weights.h5")
held = [weights]; del weights, m
found["freed"] = freed(held)
""",
        tmp_path,
        **SHORT,
    )
    assert found["fit"] == [None, 1, True], "the batch that was due, and no other"
    assert (found["stopped"], found["told"], found["files"], found["left"]) == ("warning", 1, ["stop.keras"], [])
    assert "Memory warning [batch 0]" in found["log"][0]
    assert found["optimizer"] is True
    assert found["ignored"] == [None, 32, True]
    result, exists, said = found["warned"]
    assert (result, exists, len(said)) == ([None, 32, True], False, 1)
    assert found["weights"] is found["freed"] is True


def test_critical_raises_and_the_model_can_still_be_saved(tmp_path):
    found = train(
        MODEL
        + """
m = model()
found["fit"], found["saved"] = fit(m, MemoryGuard("stop.keras")), os.path.exists("stop.keras")
m.save("mine.keras")
found["mine"] = os.path.exists("mine.keras")
found["evaluate"] = raised(lambda: m.evaluate(x, y, verbose=0, callbacks=[MemoryGuard()]))
found["predict"] = raised(lambda: m.predict(x, verbose=0, callbacks=[MemoryGuard()]))
""",
        tmp_path,
        **CRITICAL,
    )
    error, batches, ended = found["fit"]
    assert error.startswith("MemoryCritical: stop to give memory back [batch 0]: reserve")
    assert (batches, ended) == (0, False)
    assert (found["saved"], found["mine"]) == (False, True)
    assert "[evaluation]" in found["evaluate"]
    assert "[prediction]" in found["predict"]


def test_under_a_guard_only_the_chosen_process_stops_and_it_saves_first(tmp_path, page):
    found = train(
        MODEL
        + """
def guarded(name, then, hook="on_train_batch_end", **options):
    page(stop=0, level=0)
    del log[:], told[:]
    path = f"{name}.keras"
    guard = MemoryGuard(path)
    found[name] = [*fit(model(), At(3, then, hook), guard, **options), guard.stopped, len(told),
                   os.path.exists(path), log[:]]
assert oomguard._core.snapshot().guarded
guarded("warning", lambda: page(level=1, available=1))
guarded("prune", lambda: page(stop=1, cause=4))
guarded("terminate", lambda: page(stop=2, cause=8))
guarded("no time", lambda: page(stop=1, cause=3, level=2))
guarded("in validation", lambda: page(stop=1, cause=4), "on_test_batch_end", validation_data=(x, y))

page(stop=0, level=0)
backup = keras.callbacks.BackupAndRestore("backup", save_freq=2)
fit(model(), backup, At(5, lambda: page(stop=1, cause=4)), MemoryGuard())
found["backup kept"] = sorted(os.listdir("backup"))
page(stop=0, level=0)
del told[:]
fit(model(), keras.callbacks.ModelCheckpoint("each-{epoch}.keras"), MemoryGuard(), epochs=3)
found["told of"] = [len(told), len([n for n in os.listdir() if n.startswith("each-")])]
""",
        tmp_path,
        OOMGUARD_PAGE=str(page.path),
    )
    error, batches, ended, stopped, told, saved, log = found["warning"]
    assert (error, batches, ended, stopped, told, saved) == (None, 32, True, None, 0, False)
    assert "the guard decides who stops" in log[0]
    assert "MemoryCritical: stop to give memory back [batch 4]: limit" in found["prune"][0]
    assert found["prune"][1:6] == [4, False, None, 1, True]
    assert "StopRequested" in found["terminate"][0]
    assert found["terminate"][5] is True
    assert "MemoryCritical" in found["no time"][0]
    assert found["no time"][5] is False
    assert "[validation batch 4]" in found["in validation"][0]
    assert found["in validation"][5] is True
    assert found["backup kept"] != []
    assert found["told of"] == [3, 3]


def test_sigterm_saves_and_ends_the_process_with_0(tmp_path):
    code = """
oomguard.handle_sigterm()
fit = model().fit
fit(x, y, batch_size=2, verbose=0,
    callbacks=[At(4, lambda: os.kill(os.getpid(), signal.SIGTERM)), MemoryGuard("stop.keras")])
print("went on")
"""
    process = start(BEGINNING + MODEL + code, tmp_path)
    out, err = finish(process)
    assert (process.returncode, out) == (0, ""), err[-4000:]
    assert (tmp_path / "stop.keras").exists()


def test_all_is_well_neither_waits_for_the_accelerator_nor_copies_the_state():
    """What Keras's dispatch and its JAX backend go by."""
    import keras
    from keras.src.utils import is_default

    from oomguard.keras import MemoryGuard

    guard = MemoryGuard()
    for hook in ("on_batch_end", "on_train_batch_end", "on_test_batch_end", "on_predict_batch_end"):
        assert is_default(getattr(guard, hook)), hook

    class Untouchable(MemoryGuard):
        model = property(lambda self: pytest.fail("the model was asked for"))

    calm = Untouchable()
    calm._brake.begin()
    calm.on_train_batch_begin(0)
    calm.on_test_batch_begin(0)
    assert issubclass(MemoryGuard, keras.callbacks.Callback)


@pytest.mark.parametrize("path", ["model", "model.h5", "folder/"])
def test_a_path_that_keras_would_refuse_is_refused_at_once(path):
    from oomguard.keras import MemoryGuard

    with pytest.raises(ValueError, match=r"save_to must end in `.keras` or `.weights.h5`"):
        MemoryGuard(save_to=path)
