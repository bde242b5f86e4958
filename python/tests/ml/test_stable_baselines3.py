"""``oomguard.stable_baselines3.MemoryGuard`` in real trainings on CartPole."""

from __future__ import annotations

import pytest
from absence import needs
from training import BEGINNING, CRITICAL, SHORT, finish, start, train

needs("stable_baselines3", "gymnasium")

MODEL = """
import stable_baselines3 as sb3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from oomguard.stable_baselines3 import CheckpointCallback, MemoryGuard
def ppo(env="CartPole-v1"):
    return sb3.PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0,
                   policy_kwargs={"net_arch": [4]})
def dqn():
    return sb3.DQN("MlpPolicy", "CartPole-v1", buffer_size=64, learning_starts=8, device="cpu", seed=0,
                   policy_kwargs={"net_arch": [4]})
class At(BaseCallback):
    def __init__(self, step, then):
        super().__init__(); self.step, self.then, self.ended = step, then, False
    def _on_step(self):
        if self.num_timesteps == self.step: self.then()
        return True
    def _on_training_end(self): self.ended = True
"""


def test_a_warning_saves_and_ends_learning_in_good_order(tmp_path):
    found = train(
        MODEL
        + """
m, guard, sees = ppo(), MemoryGuard("new/stop.zip"), At(None, None)
m.learn(64, callback=[sees, guard])
found["ppo"] = [m.num_timesteps, guard.stopped, sees.ended, len(told), os.listdir("new"), log[:]]
again = sb3.PPO.load("new/stop.zip", env=make_vec_env("CartPole-v1", 1))
again.learn(32, callback=MemoryGuard(on_warning="ignore"))
found["ignored"] = again.num_timesteps
m = dqn()
m.learn(64, callback=MemoryGuard("dqn.zip", save_replay_buffer=True))
found["dqn"] = [m.num_timesteps, sorted(n for n in os.listdir() if n.startswith("dqn"))]
normal = ppo(VecNormalize(make_vec_env("CartPole-v1", 1)))
normal.learn(64, callback=MemoryGuard("normal.zip"))
found["normal"] = sorted(n for n in os.listdir() if n.startswith("normal"))
VecNormalize.load("normal_vecnormalize.pkl", make_vec_env("CartPole-v1", 1))
del log[:]
m = ppo()
m.learn(32, callback=MemoryGuard("never.zip", on_warning="warn"))
found["warned"] = [m.num_timesteps, os.path.exists("never.zip"), log[:]]
""",
        tmp_path,
        **SHORT,
    )
    steps, stopped, ended, told, files, log = found["ppo"]
    assert (steps, stopped, ended, told, files) == (1, "warning", True, 1, ["stop.zip"])
    assert "Memory warning [step 1]" in log[0]
    assert found["ignored"] == 32
    assert found["dqn"] == [1, ["dqn.zip", "dqn_replay_buffer.pkl"]]
    assert found["normal"] == ["normal.zip", "normal_vecnormalize.pkl"]
    steps, exists, said = found["warned"]
    assert (steps, exists, len(said)) == (32, False, 1)


def test_critical_raises_and_the_model_can_still_be_saved(tmp_path):
    found = train(
        MODEL
        + """
m, sees = ppo(), At(None, None)
found["raised"] = raised(lambda: m.learn(64, callback=[sees, MemoryGuard("stop.zip")]))
found["ended"], found["saved"] = sees.ended, os.path.exists("stop.zip")
m.save("mine.zip")
found["mine"] = os.path.exists("mine.zip")
guard = MemoryGuard("stop.zip")
guard.init_callback(m)
held = [guard]; del guard
found["freed"] = freed(held)
""",
        tmp_path,
        **CRITICAL,
    )
    assert found["raised"].startswith("MemoryCritical: stop to give memory back [step 1]: reserve")
    assert (found["ended"], found["saved"], found["mine"]) == (False, False, True)
    assert found["freed"] is True


def test_under_a_guard_only_the_chosen_process_stops_and_it_saves_first(tmp_path, page):
    found = train(
        MODEL
        + """
def learn(name, then, make=ppo, step=5):
    page(stop=0, level=0)
    del log[:], told[:]
    m, guard, path = make(), MemoryGuard(f"{name}.zip"), f"{name}.zip"
    error = raised(lambda: m.learn(32, callback=[At(step, then), guard]))
    found[name] = [error, m.num_timesteps, guard.stopped, len(told), os.path.exists(path), log[:]]
assert oomguard._core.snapshot().guarded
learn("warning", lambda: page(level=1, available=1))
learn("prune", lambda: page(stop=1, cause=4))
learn("prune dqn", lambda: page(stop=1, cause=4), dqn, 20)
learn("terminate", lambda: page(stop=2, cause=8))
learn("no time", lambda: page(stop=1, cause=3, level=2))
page(stop=0, level=0)
del told[:]
ppo().learn(32, callback=[CheckpointCallback(8, "each"), MemoryGuard()])
found["told of"] = [len(told), len(os.listdir("each"))]
""",
        tmp_path,
        OOMGUARD_PAGE=str(page.path),
    )
    error, steps, stopped, told, saved, log = found["warning"]
    assert (error, steps, stopped, told, saved) == (None, 32, None, 0, False)
    assert "the guard decides who stops" in log[0]
    assert "MemoryCritical: stop to give memory back [step 5]: limit" in found["prune"][0]
    assert found["prune"][1:5] == [5, None, 1, True]
    assert found["prune dqn"][1:5] == [20, None, 1, True]
    assert "StopRequested" in found["terminate"][0]
    assert found["terminate"][4] is True
    assert "MemoryCritical" in found["no time"][0]
    assert found["no time"][4] is False
    assert found["told of"] == [4, 4]


def test_sigterm_saves_and_ends_the_process_with_0(tmp_path):
    code = """
oomguard.handle_sigterm()
ppo().learn(64, callback=[At(7, lambda: os.kill(os.getpid(), signal.SIGTERM)), MemoryGuard("stop.zip")])
print("went on")
"""
    process = start(BEGINNING + MODEL + code, tmp_path)
    out, err = finish(process)
    assert (process.returncode, out) == (0, ""), err[-4000:]
    assert (tmp_path / "stop.zip").exists()


def test_a_path_without_its_suffix_is_refused_at_once():
    from oomguard.stable_baselines3 import MemoryGuard

    with pytest.raises(ValueError, match=r"save_to must end in `.zip`, not `model`"):
        MemoryGuard(save_to="model")
