"""Memory of a device: how much of it one batch may take, and what to do when it runs out.

Batches are chosen from the memory that is free, but in steps of powers of two and, on a CPU, up to a fixed size: the
sums of a batch in other parts differ in their last digits, and the same study shall give the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from ontogeny.core.errors import ImpossibleRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

BUDGET = 2**30
"""Bytes beside the weights that one batch may take on a CPU."""
SHARE = 0.5
"""Of what is free on a device: the rest is for what is not counted, and for other workers."""
SMALLEST = 2**24


def budget_on(device: torch.device) -> int:
    """Bytes beside the weights that one batch may take: a power of two, at most half of what is free."""
    allowed = int(SHARE * free_memory(device))
    largest = BUDGET if device.type == "cpu" else allowed
    return 1 << (max(SMALLEST, min(allowed, largest)).bit_length() - 1)


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or on the host."""
    # torch's own error is for accelerators; its CPU allocator raises a plain RuntimeError
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def within_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns, or None if memory ran out; by then the error, which holds on to every tensor, is gone."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def halved(work: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """``work(size)``, with half the size as often as memory runs out; what it returns, and the size that fitted.

    Raises:
        ImpossibleRequest: a size of 1 does not fit; `what` says of what.
    """
    while True:
        found = within_memory(lambda size=size: work(size))  # type: ignore[misc]
        if found is not None:
            return found, size
        if size == 1:
            raise ImpossibleRequest(
                f"Out of memory with a single {what}. Use a smaller model, a device with more memory, or fewer jobs at "
                "once (execution.n_jobs)."
            )
        size //= 2
        log.warning("Out of memory: going on with %d at once (%s).", size, what)
