"""Caches that are given back before anything has to be stopped.

python examples/python/give_back.py
"""

import oomguard

cache: dict[int, bytearray] = {i: bytearray(b"x") * (1 << 20) for i in range(64)}


@oomguard.on_pressure
def drop_the_cache() -> None:
    cache.clear()


if __name__ == "__main__":
    # Called by itself when memory gets short or the guard of `oomguard up` asks; here by hand.
    print(oomguard.relieve())
    print("cached:", len(cache))
