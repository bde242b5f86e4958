"""The modules for frameworks, where there are none."""

from __future__ import annotations

import subprocess
import sys


def test_a_module_that_is_not_there_names_the_extra():
    """Each framework's module, in a Python that has none of them."""
    for name in ("lightning", "transformers", "keras", "stable_baselines3"):
        code = f"""
import sys
class None_:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "transformers", "keras", "stable_baselines3"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, None_())
import oomguard.{name}
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: oomguard.{name} needs "), result.stderr
        assert f"pip install 'oomguard[{name.replace('_', '-')}]'" in last
