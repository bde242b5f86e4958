"""A worker that somebody else starts puts itself under a limit.

    python examples/python/limit_a_worker.py

As root the limit is a cgroup made where `OOMGUARD_CGROUP_PARENT` says, or one that is found.
"""

import subprocess
import sys

WORKER = """
import oomguard
held = oomguard.limit_self("200MiB")
print("held by", held.enforcement, flush=True)
data = bytearray(500 << 20)
print("not reached")
"""

if __name__ == "__main__":
    worker = subprocess.run([sys.executable, "-W", "ignore", "-c", WORKER], stderr=subprocess.DEVNULL, check=False)
    print("the worker ended with", worker.returncode, "and nobody else did")
