"""Pre-flight: refuses with 75 before anything is collected, and names who holds the memory. VRAM with a stand-in for
``nvidia-smi`` that answers what the real one would."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MUST_NOT_RUN = "raise SystemExit('collected all the same')"


@pytest.fixture
def smi(tmp_path):
    """Puts an ``nvidia-smi`` on a PATH of its own: ``answer(gpus=..., apps=...)`` says what it prints."""

    def answer(gpus="", apps="", code=0, said=""):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        program.write_text(
            f"""#!{sys.executable}
import sys
print(sys.argv[1:], file=open({str(tmp_path / "asked")!r}, "a"))
sys.stderr.write({said!r})
words = " ".join(sys.argv)
if "--query-gpu=memory.used,memory.total" in words: print({gpus!r})
elif "--query-compute-apps=pid,used_memory" in words: print({apps!r})
else: sys.exit("unknown query: " + words)
sys.exit({code})
"""
        )
        program.chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    return answer


def test_no_room_is_refused_and_the_largest_process_is_named(inner):
    inner.write(test_a=MUST_NOT_RUN)
    hold = "x = bytearray(250 << 20); print('holding', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "holding\n"
        result = inner.run("--oomguard-ram-preflight=0%")
        holder.communicate("\n")
    assert result.code == 75, result
    assert "collected all the same" not in str(result)
    assert "oomguard: no room to run tests: RAM " in result.err
    assert "used, more than 0% (--oomguard-ram-preflight); " in result.err
    held = [line for line in result.err.splitlines() if line.startswith("  held by: ")]
    assert 1 <= len(held) <= 5
    sizes = [float(line.split()[2]) * {"MiB": 1, "GiB": 1024}[line.split()[3]] for line in held]
    assert sizes == sorted(sizes, reverse=True)
    # Five larger processes may be there; with fewer, this one is among them.
    assert any(f"pid {holder.pid}  {sys.executable} -c x = bytearray(250" in line for line in held) or sizes[-1] > 250
    assert "remedy: " in result.err


def test_room_is_no_event(inner):
    inner.write(test_a="def test_a(): pass")
    result = inner.run("--oomguard-ram-preflight=100%")
    assert result.code == 0, result
    assert "pre-flight" not in result.out


def test_full_vram_is_refused(inner, smi):
    inner.write(test_a=MUST_NOT_RUN)
    env = smi(gpus="100, 24576\n20000, 24576", apps=f"{os.getpid()}, 18000\n[N/A], 12")
    result = inner.run("--oomguard-vram-preflight=80%", env=env)
    assert result.code == 75, result
    assert "VRAM 81.4% used, more than 80% (--oomguard-vram-preflight); 4576.0 MiB of 24.0 GiB free" in result.err
    held = [line for line in result.err.splitlines() if line.startswith("  held by: ")]
    assert len(held) == 1
    assert held[0].startswith(f"  held by: 17.6 GiB  pid {os.getpid()}  ")


def test_the_visible_gpus_count(inner, smi):
    inner.write(test_a="def test_a(): pass")
    env = smi(gpus="100, 24576")
    assert inner.run("--oomguard-vram-preflight=80%", env={**env, "CUDA_VISIBLE_DEVICES": "1"}).code == 0
    assert "'--id=1'" in (inner.folder / "asked").read_text()


def test_room_in_vram_is_shown_in_percent(inner, smi):
    inner.write(test_a="def test_a(): pass")
    result = inner.run("--oomguard", "--oomguard-profile=p.txt", env=smi(gpus="2458, 24576"))
    assert "; VRAM 10.0% used" in result.out
    assert (inner.folder / "p.txt").read_text().count(" | VRAM: 10.0% | ") == 2


@pytest.mark.parametrize(
    ("answer", "env", "why"),
    [
        (None, {"PATH": "/no/such/folder"}, "torch does not use CUDA in this process and there is no `nvidia-smi`"),
        ({"code": 9, "said": "NVIDIA-SMI has failed"}, {}, "`nvidia-smi` ended with 9: NVIDIA-SMI has failed"),
        ({"gpus": "[N/A], [N/A]"}, {}, "`nvidia-smi` says `[N/A], [N/A]`"),
        ({"gpus": "0, 0"}, {}, "no GPU is listed"),
        ({"gpus": "9, 10"}, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is ``: no GPU is visible"),
    ],
)
@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_unknown_vram_refuses_nothing_and_is_said_once(inner, smi, answer, env, why, quiet):
    inner.write(test_a="def test_a(): pass")
    env = {**(smi(**answer) if answer else {}), **env}
    result = inner.run("--oomguard-vram-preflight=80%", *quiet, env=env)
    assert result.code == 0, result
    assert result.out.count(f"oomguard: VRAM pre-flight: unknown, because {why}") == 1
