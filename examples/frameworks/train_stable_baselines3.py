"""A small reinforcement learning that stops in good order when memory gets short, and goes on where it stopped."""

from __future__ import annotations

import os

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import oomguard
from oomguard.stable_baselines3 import MemoryGuard


def main() -> None:
    oomguard.handle_sigterm()
    envs = make_vec_env("CartPole-v1", n_envs=1)
    if os.path.exists("last.zip"):
        model = PPO.load("last.zip", env=envs, device="cpu")
    else:
        model = PPO("MlpPolicy", envs, n_steps=64, batch_size=64, n_epochs=1, device="cpu")
    guard = MemoryGuard(save_to="last.zip")
    model.learn(128, callback=guard, reset_num_timesteps=False)
    print(f"{model.num_timesteps} steps, stopped by: {guard.stopped}")


if __name__ == "__main__":
    main()
