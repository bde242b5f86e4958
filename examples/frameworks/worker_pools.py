"""Worker processes with a limit of their own: the one that goes beyond it dies alone, and the error says why."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import oomguard


def work(size: int) -> int:
    return len(bytearray(size))


def main() -> None:
    limit = oomguard.worker_init(limit="300MiB")
    try:
        with limit, ProcessPoolExecutor(2, initializer=limit) as pool:
            print(list(pool.map(work, [1 << 20, 2 << 20])))
            print(pool.submit(work, 700 << 20).result())
    except (MemoryError, OSError, RuntimeError) as error:  # BrokenProcessPool is a RuntimeError
        print(f"{type(error).__name__}: {limit.explain(error)}")


if __name__ == "__main__":
    main()
