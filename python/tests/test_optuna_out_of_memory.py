"""Which exceptions prune a trial because memory ran out, and what it says then."""

from __future__ import annotations

import errno
import importlib

import optuna
import pytest
from absence import absent
from optuna.trial import TrialState

import oomguard
import oomguard.optuna as og
from oomguard.optuna._out_of_memory import memory_that_ran_out


def error(module, name, message="", base=RuntimeError):
    """An exception as a library that is not installed here would raise it."""
    return type(name, (base,), {"__module__": module})(message)


def caused(cause):
    wrapped = ValueError("training failed")
    wrapped.__cause__ = cause
    return wrapped


RAN_OUT = [
    (MemoryError(), "limit"),
    (error("numpy._core._exceptions", "_ArrayMemoryError", base=MemoryError), "limit"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "limit"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:128] . DefaultCPUAllocator: can't allocate memory"), "limit"),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."), "limit"),
    (RuntimeError("std::bad_alloc"), "limit"),
    (error("torch", "OutOfMemoryError", "CUDA out of memory."), "vram"),
    (error("torch.cuda", "OutOfMemoryError", "CUDA out of memory."), "vram"),
    (error("torch", "AcceleratorError", "CUDA error: out of memory"), "vram"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "vram"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "vram"),
    (RuntimeError("MPS backend out of memory"), "vram"),
    (error("cupy.cuda.memory", "OutOfMemoryError", base=MemoryError), "vram"),
    (error("cupy_backends.cuda.api.runtime", "CUDARuntimeError", "cudaErrorMemoryAllocation: out of memory"), "vram"),
    (error("jaxlib.xla_extension", "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory"), "vram"),
    (error("jaxlib._jax", "JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory"), "vram"),
    (error("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", base=Exception), "vram"),
    (caused(caused(MemoryError())), "limit"),
]

DID_NOT = [
    RuntimeError("mine"), ValueError("out of memory"), OSError(errno.ENOSPC, "No space left on device"),
    error("jaxlib.xla_extension", "XlaRuntimeError", "INVALID_ARGUMENT: RESOURCE"),
    error("torch", "AcceleratorError", "CUDA error: an illegal memory access was encountered"),
    error("mine", "OutOfMemoryError", "CUDA out of memory", ValueError), caused(KeyError("x")),
]  # fmt: skip


@pytest.mark.parametrize(("raised", "memory"), RAN_OUT, ids=lambda value: type(value).__name__)
def test_running_out_of_memory_prunes_and_says_of_which(quick, raised, memory):
    def run_out(trial):
        raise raised

    og.attach(quick).optimize(run_out, n_trials=1, catch=(Exception,))
    trial = quick.trials[0]
    assert (trial.state, trial.user_attrs["oom_cause"]) == (TrialState.PRUNED, memory)
    assert trial.user_attrs["kill_reason"] == f"OOM prevention [{type(raised).__name__}]"


@pytest.mark.parametrize("raised", DID_NOT, ids=lambda value: type(value).__name__)
def test_other_errors_are_the_objectives_own(quick, raised):
    def fail(trial):
        raise raised

    og.attach(quick).optimize(fail, n_trials=1, catch=(Exception,))
    assert quick.trials[0].state == TrialState.FAIL
    assert "oom_cause" not in quick.trials[0].user_attrs


def test_a_cause_that_causes_itself_ends():
    loop = ValueError("a")
    loop.__cause__ = ValueError("b")
    loop.__cause__.__cause__ = loop
    assert memory_that_ran_out(loop) is None


def test_a_trial_that_the_objective_pruned_itself_is_not_ours(quick):
    def prune(trial):
        raise optuna.TrialPruned from MemoryError()

    og.attach(quick).optimize(prune, n_trials=1)
    assert quick.trials[0].state == TrialState.PRUNED
    assert "emergency_killed" not in quick.trials[0].user_attrs


@pytest.mark.parametrize(("cause", "written"), [("leak", "leak"), ("reserve", "reserve"), ("age", None)])
def test_the_brake_writes_the_guards_word_if_it_is_about_memory(quick, cause, written):
    def stop(trial):
        raise oomguard.MemoryCritical("epoch 3", cause)

    og.attach(quick).optimize(stop, n_trials=1)
    assert quick.trials[0].user_attrs.get("oom_cause") == written


def test_a_guard_inside_the_objective_keeps_the_brakes_own_word(quick):
    """At its end it makes a ``MemoryError`` of the brake, which is not this trial's fault."""

    def stop(trial):
        with oomguard.guard():
            raise oomguard.MemoryCritical("epoch 3", "reserve")

    og.attach(quick).optimize(stop, n_trials=1)
    attrs = quick.trials[0].user_attrs
    assert (attrs["oom_cause"], attrs["kill_reason"]) == ("reserve", "OOM prevention [epoch 3]")


def library(name):
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        absent(name, str(missing))


def test_torch_refusing_ram_prunes(quick):
    torch = library("torch")
    og.attach(quick).optimize(lambda trial: float(torch.empty(1 << 55)[0]), n_trials=1)
    assert quick.trials[0].user_attrs["oom_cause"] == "limit"


def test_numpy_refusing_ram_prunes(quick):
    numpy = library("numpy")
    og.attach(quick).optimize(lambda trial: float(numpy.empty(1 << 55)[0]), n_trials=1)
    assert quick.trials[0].user_attrs["oom_cause"] == "limit"


def test_torch_refusing_vram_prunes(quick):
    torch = library("torch")
    if not torch.cuda.is_available():
        absent("cuda", "torch sees no GPU")
    og.attach(quick).optimize(lambda trial: float(torch.empty(1 << 45, device="cuda")[0]), n_trials=1)
    assert quick.trials[0].user_attrs["oom_cause"] == "vram"
