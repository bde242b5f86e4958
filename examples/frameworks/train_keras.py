"""A small Keras training that stops in good order when memory gets short, and goes on where it stopped."""

from __future__ import annotations

import os

import keras
import numpy as np

import oomguard
from oomguard.keras import MemoryGuard


def new_model() -> keras.Model:
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def main() -> None:
    oomguard.handle_sigterm()
    x, y = np.ones((256, 8), "float32"), np.zeros((256, 1), "float32")
    model = keras.saving.load_model("last.keras") if os.path.exists("last.keras") else new_model()
    guard = MemoryGuard(save_to="last.keras")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[guard])
    print(f"{int(model.optimizer.iterations)} steps, stopped by: {guard.stopped}")


if __name__ == "__main__":
    main()
