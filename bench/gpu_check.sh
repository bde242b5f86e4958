#!/usr/bin/env bash
# Proves on a machine with an NVIDIA GPU, against NVML and torch themselves, that what oomguard says of VRAM is right:
# used memory, memory by process, a leak, the limit, pre-flight, and the wait for what comes back; and what `run` makes of its
# rules: a limit that is exceeded, a GPU of which too little is left, and relief that is enough.
#
#   bench/gpu_check.sh [OOMGUARD [PYTHON]]     defaults: target/release/oomguard, python3 (with torch and pytest)
#
# Uses the first visible GPU, 5 GiB of it at most. One line a step; ends with 1 if any step is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

OOMGUARD=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/oomguard}")
PYTHON=${2:-python3}
WORK=$(mktemp -d)
HOLDER=
FAILED=0

finish() {
    [ -z "$HOLDER" ] || kill -KILL "$HOLDER" 2>/dev/null || true
    rm -rf "$WORK"
}
trap finish EXIT
export XDG_STATE_HOME="$WORK/state"

# Whoever lacks something says so; it is a failure where OOMGUARD_REQUIRE names it.
skip() {
    echo "skipped: $2"
    case ",${OOMGUARD_REQUIRE:-}," in *",$1,"*) exit 1 ;; esac
}

step() {
    local what=$1
    shift
    if "$@"; then echo "ok      $what"; else echo "WRONG   $what"; FAILED=1; fi
}

if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    skip gpu "there is no NVIDIA GPU here (nvidia-smi -L)"
    exit 0
fi
"$PYTHON" -c 'import torch; assert torch.cuda.is_available()' || { skip torch "torch of $PYTHON sees no GPU"; exit 0; }
TORCH=$("$PYTHON" -c 'import torch; print(torch.__version__)')
# CUDA's first device, as NVML knows it.
UUID=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_properties(0).uuid)')
export CUDA_VISIBLE_DEVICES="GPU-${UUID#GPU-}"
echo "GPU $CUDA_VISIBLE_DEVICES, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1), torch $TORCH"

# What the driver's own program says, in MiB.
smi() { nvidia-smi -i "$CUDA_VISIBLE_DEVICES" --query-gpu="$1" --format=csv,noheader,nounits; }
# What oomguard says, in percent.
percent() { "$OOMGUARD" check --max-ram 100% --max-vram 100% --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["vram_used_percent"])'; }
# Whether two numbers differ by no more than a third.
near() { "$PYTHON" -c 'import sys; a, b, most = map(float, sys.argv[1:]); print(f"        {a:.2f} and {b:.2f}"); sys.exit(abs(a - b) > most)' "$1" "$2" "$3"; }
# Whether torch can be told its share of a GPU by a variable.
knows_share() { "$PYTHON" -c 'import sys; sys.exit(tuple(map(int, sys.argv[1].split(".")[:2])) < (2, 9))' "$TORCH"; }
# A value of a file in the report.
report() { "$PYTHON" -c 'import json, sys; print(next(f for f in json.load(open(sys.argv[1]))["files"] if f["path"].endswith(sys.argv[2]))[sys.argv[3]])' "$WORK/report.json" "$1" "$2"; }

same_total() {
    local line
    line=$("$OOMGUARD" doctor | grep -E 'GPU [0-9]+ .* of .* used') || true
    echo "        $line"
    [ -n "$line" ] && "$OOMGUARD" doctor | grep -q 'NVML: driver'
}
step "doctor: NVML answers, the devices are named" same_total

# --- used memory, by device and by process ---------------------------------------------------------------------------
TOTAL=$(smi memory.total)
BEFORE=$(percent)
GIBS=4
"$PYTHON" -c '
import sys, torch, time
held = torch.empty(int(sys.argv[1]) << 30, dtype=torch.uint8, device="cuda").fill_(1)
torch.cuda.synchronize()
open(sys.argv[2], "w").close()
time.sleep(600)
' "$GIBS" "$WORK/held" &
HOLDER=$!
for _ in $(seq 600); do
    [ -e "$WORK/held" ] && break
    kill -0 "$HOLDER"
    sleep 0.1
done
DURING=$(percent)
AS_SMI=$("$PYTHON" -c "print(100 * (1 - $(smi memory.free) / $TOTAL))")
step "used memory is what nvidia-smi says (percent)" near "$DURING" "$AS_SMI" 0.5
GROWN=$("$PYTHON" -c "print(($DURING - $BEFORE) * $TOTAL / 100 / 1024)")
# CUDA's context comes on top of the tensor.
step "used memory grew by the tensor of $GIBS GiB and a context (GiB)" near "$GROWN" "$GIBS.5" 0.6

held_by_it() {
    local line
    line=$("$OOMGUARD" doctor | grep -oE "\(pid $HOLDER, [0-9.]+ GiB\)") || return 1
    near "$(grep -oE '[0-9.]+ GiB' <<<"$line" | cut -d' ' -f1)" "$GIBS.5" 0.6
}
if "$OOMGUARD" doctor | grep -q 'processes: not shown'; then
    skip gpu-pids "the driver hides processes from this namespace; doctor says so"
    PIDS=0
else
    step "doctor names the process and what it holds (GiB)" held_by_it
    PIDS=1
fi

# --- pre-flight ------------------------------------------------------------------------------------------------------
LESS=$("$PYTHON" -c "print(max(1, int($DURING)))")
refused() {
    local code=0
    "$OOMGUARD" check --max-ram 100% --max-vram "$LESS%" 2>"$WORK/refused" || code=$?
    echo "        $(cat "$WORK/refused")"
    [ "$code" = 75 ] && grep -q 'VRAM .*% used' "$WORK/refused"
}
if "$PYTHON" -c "import sys; sys.exit($DURING <= $LESS)"; then
    step "pre-flight refuses with 75 above $LESS %" refused
else
    skip gpu-small "$GIBS GiB are less than a percent of this GPU"
fi
kill -KILL "$HOLDER"
wait "$HOLDER" 2>/dev/null || true
HOLDER=

# --- a suite ---------------------------------------------------------------------------------------------------------
SUITE="$WORK/suite"
mkdir "$SUITE"
printf '[pytest]\n' >"$SUITE/pytest.ini"
cat >"$SUITE/test_a_leak.py" <<'PY'
import time
import torch.cuda

def test_leak():
    kept = []
    for _ in range(8):
        kept.append(torch.empty(256 << 20, dtype=torch.uint8, device="cuda").fill_(1))
        torch.cuda.synchronize()
        time.sleep(0.25)
    time.sleep(1.5)
PY
cat >"$SUITE/test_b_after.py" <<'PY'
import os
import torch.cuda

def test_it_has_come_back():
    free, total = torch.cuda.mem_get_info()
    used = (total - free) / (1 << 30)
    before = float(os.environ["BEFORE"]) * total / 100 / (1 << 30)
    # This process has a context of its own by now.
    assert used < before + 1.0, f"{used:.2f} GiB used, {before:.2f} before"
PY
run() {
    local code=0
    (cd "$SUITE" && BEFORE="$BEFORE" "$OOMGUARD" test --ram-preflight 100% --ram-target 100% --vram-preflight 100% \
        --python "$PYTHON" --report "$WORK/report.json" --memory-profile "$WORK/profile.log" "$@") >"$WORK/out" 2>&1 || code=$?
    return "$code"
}
step "the suite passes: what the leaking file held had come back before the next began" run
if [ "$PIDS" = 1 ]; then
    PEAK=$("$PYTHON" -c "print(int($(report test_a_leak.py peak_vram) or 0) / (1 << 30))" 2>/dev/null || echo 0)
    step "the peak of the file that leaks 2 GiB (GiB)" near "$PEAK" 2.5 0.6
fi
profile() { ! grep -q 'VRAM: unknown' "$WORK/profile.log" && grep -q 'VRAM: [0-9]' "$WORK/profile.log"; }
step "every profile line says how much VRAM is used" profile

too_much() {
    local code=0
    run --vram-limit 1GiB test_a_leak.py || code=$?
    [ "$code" = 1 ] && grep -qi 'out of memory' "$WORK/out"
}
if knows_share; then
    step "the limit: 2 GiB do not fit into 1 GiB, and torch says so" too_much
    step "the limit: 2 GiB fit into 3 GiB" run --vram-limit 3GiB test_a_leak.py
else
    skip torch-2.9 "torch $TORCH cannot be told its share by a variable"
fi

# --- rules of `run` --------------------------------------------------------------------------------------------------
cat >"$WORK/grows.py" <<'PY'
import time
import torch

kept = []
for _ in range(12):
    kept.append(torch.empty(256 << 20, dtype=torch.uint8, device="cuda").fill_(1))
    torch.cuda.synchronize()
    time.sleep(0.5)
time.sleep(60)
PY
# What the guard decided, of the report of `run`.
decided() { "$PYTHON" -c 'import json, sys; it = json.load(open(sys.argv[1])); print(it["which_limit"], it["decided_by"]["event"], it["decided_by"]["reason"], it["decided_by"]["used"] >> 20, it["decided_by"]["free"] >> 20)' "$WORK/run.json"; }
braked() {
    local code=0
    # The user's word stays: torch itself is not to refuse first.
    PYTORCH_CUDA_ALLOC_CONF=per_process_memory_fraction:1.0 "$OOMGUARD" run --best-effort --grace 2s --report "$WORK/run.json" \
        "$@" -- "$PYTHON" "$WORK/grows.py" 2>"$WORK/out" || code=$?
    echo "        exit $code; $(decided) MiB; $(tail -1 "$WORK/out")"
    [ "$code" = 137 ]
}
over_limit() { braked --vram-limit 2GiB && [[ $(decided) == "vram vram-brake over-limit "* ]]; }
too_short() {
    local left
    left=$(smi memory.free)
    braked --vram-reserve "$((left - 2048))MiB" && [[ $(decided) == "vram vram-brake "* ]]
}
if [ "$PIDS" != 1 ]; then
    skip gpu-pids "the driver hides processes: nobody can be held to a limit, and that is said"
elif ! knows_share; then
    skip torch-2.9 "torch $TORCH refuses the variable by which it is told not to refuse"
else
    step "run: a command that grows beyond its VRAM limit is braked, and the report says why" over_limit
    step "run: of a GPU of which too little is left, its holder is braked" too_short
    # The driver needs a moment for its own.
    sleep 2
    step "run: what the braked ones held has come back (percent)" near "$(percent)" "$BEFORE" 1
fi

cat >"$WORK/caches.py" <<'PY'
import time
import torch
import oomguard

oomguard.check()
kept = [torch.empty(256 << 20, dtype=torch.uint8, device="cuda").fill_(1) for _ in range(15)]
torch.cuda.synchronize()
del kept
end = time.monotonic() + 20
while torch.cuda.memory_reserved() > 1 << 30:
    assert time.monotonic() < end, "nobody asked for torch's cache"
    oomguard.check()
    time.sleep(0.05)
time.sleep(2)
oomguard.check()
PY
relieved() {
    local code=0 said
    PYTORCH_CUDA_ALLOC_CONF=per_process_memory_fraction:1.0 "$OOMGUARD" run --best-effort --vram-limit 5GiB --json -- \
        "$PYTHON" "$WORK/caches.py" 2>"$WORK/out" || code=$?
    said=$("$PYTHON" -c 'import json, sys; print(*(json.loads(line)["event"] for line in open(sys.argv[1]) if line.startswith("{")))' "$WORK/out")
    echo "        exit $code; $said"
    [ "$code" = 0 ] && [[ $said == *vram-near*vram-relieve*relieved* ]] && [[ $said != *vram-brake* ]]
}
if [ "$PIDS" = 1 ] && "$PYTHON" -c 'import oomguard' 2>/dev/null; then
    step "relief: torch's cache is given back before anybody is braked" relieved
else
    skip oomguard-package "$PYTHON has no package oomguard, or the driver hides processes"
fi

if [ "$FAILED" != 0 ]; then
    tail -40 "$WORK/out"
    exit 1
fi
echo "all right"
