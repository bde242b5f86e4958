"""A training loop that gives way to memory as an ordinary error: smaller batches instead of a dead machine.

python examples/python/guard_a_loop.py
"""

import oomguard


def train(batch: int) -> float:
    """Needs 1 MB for each sample of the batch."""
    loss = 1.0
    with oomguard.guard(limit="160MiB", context=f"batch {batch}") as guard:
        for step in range(5):
            samples = [bytearray(1 << 20) for _ in range(batch)]
            guard.check(f"step {step}")  # some atomic loads; here MemoryCritical is raised
            loss = loss * 0.9 + 0.0 * len(samples)
            with oomguard.shield():  # interrupt=True would not cut this in half
                pass  # save a checkpoint here
            oomguard.checkpoint()  # the guard of `oomguard up` now knows that ending us costs little
    return loss


def main() -> None:
    batch = 1024
    while True:
        try:
            loss = train(batch)
            break
        except MemoryError as error:  # the guard's, or NumPy's and torch's own
            print(f"batch {batch} does not fit: {error}")
        batch //= 4  # outside of `except`: the frames of the error are gone, and with them what they held
    print(f"batch {batch} fits, loss {loss:.2f}")


if __name__ == "__main__":
    main()
