"""A library that never calls `check` is stopped all the same, in a sleep too.

    OOMGUARD_RESERVE=1024T OOMGUARD_WARNING=1024T python examples/python/interrupt_a_library.py

The two variables say that this machine is short: take them away and it sleeps for ten seconds.
"""

import time

import oomguard


@oomguard.guarded(interrupt=True)
def somebody_elses_code() -> str:
    time.sleep(10)
    return "slept in peace"


if __name__ == "__main__":
    try:
        print(somebody_elses_code())
    except MemoryError as error:
        print(f"stopped: {error}")
