"""One live line about memory, below a notebook's cell or in a terminal.

python examples/python/live_line.py
"""

import oomguard

if __name__ == "__main__":
    with oomguard.monitor(every=0.1):
        data = [bytearray(1 << 20) for _ in range(100)]
        print("held:", len(data), "MiB")
