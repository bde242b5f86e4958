"""Which exceptions say that an allocation failed, and of which memory. Imports no library that raises one."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from oomguard._errors import MemoryCritical

RAM = "limit"
VRAM = "vram"
"""The guard's words for them: an allocation that is refused is over what this process may have."""

_KINDS = {
    ("torch", "OutOfMemoryError"): VRAM,
    ("cupy", "OutOfMemoryError"): VRAM,
    ("tensorflow", "ResourceExhaustedError"): VRAM,
    ("numba", "CudaAPIError"): None,
    ("cupy_backends", "CUDARuntimeError"): None,
    ("jaxlib", "XlaRuntimeError"): None,
    ("jaxlib", "JaxRuntimeError"): None,
    ("jax", "JaxRuntimeError"): None,
    ("torch", "AcceleratorError"): None,
    ("builtins", "RuntimeError"): None,
}
"""Top-level package and name of a class; ``None`` where only its message tells."""

_MESSAGES = (
    # torch's allocator of RAM: "can't allocate memory" on Linux, "not enough memory" on Windows.
    ("DefaultCPUAllocator:", RAM),
    ("std::bad_alloc", RAM),
    ("CUDA out of memory", VRAM),
    ("HIP out of memory", VRAM),
    ("CUDA error: out of memory", VRAM),
    ("cudaErrorMemoryAllocation", VRAM),
    ("CUDA_ERROR_OUT_OF_MEMORY", VRAM),
    ("CUBLAS_STATUS_ALLOC_FAILED", VRAM),
    ("CUDNN_STATUS_ALLOC_FAILED", VRAM),
    ("MPS backend out of memory", VRAM),
    ("RESOURCE_EXHAUSTED", VRAM),
)

CHAIN = 8
"""How many causes (``raise ... from``) are looked at."""


def memory_that_ran_out(error: BaseException) -> str | None:
    """``limit`` (RAM) or ``vram`` if ``error``, or what it was raised from, says that an allocation failed.

    Knows ``MemoryError``, the operating system's ``ENOMEM``, and the errors of torch, CuPy, JAX, TensorFlow and Numba.
    """
    return next((found for link in _chain(error) if (found := _of_one(link)) is not None), None)


def brake_behind(error: BaseException) -> MemoryCritical | None:
    """The brake that ``error`` was made of: ``oomguard.guard()`` turns it into a ``MemoryError``."""
    return next((link for link in _chain(error) if isinstance(link, MemoryCritical)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__


def _of_one(error: BaseException) -> str | None:
    for kind in type(error).__mro__:
        key = (kind.__module__.split(".")[0], kind.__name__)
        if key in _KINDS:
            return _KINDS[key] or _by_message(str(error))
    if isinstance(error, MemoryError):
        return RAM
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return RAM
    return None


def _by_message(message: str) -> str | None:
    return next((memory for words, memory in _MESSAGES if words in message), None)
