"""Batches follow the memory that is free, in steps; when it runs out, work goes on with less at once."""

import pytest
import torch

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.models import memory
from ontogeny.models.memory import budget_on, free_memory, halved, is_out_of_memory, within_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FULL = torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("device", "free", "budget"),
    [
        (CPU, 64 * 2**30, 2**30),
        (CPU, 2 * 2**30, 2**30),
        (CPU, 2 * 2**30 - 1, 2**29),
        (CPU, 0, 2**24),
        (CUDA, 80 * 2**30, 32 * 2**30),
        (CUDA, 10 * 2**30, 4 * 2**30),
        (CUDA, 6 * 2**20, 2**24),
    ],
)
def test_a_batch_takes_a_power_of_two_within_half_of_what_is_free(
    device: torch.device, free: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU never more than a fixed size, so that machines with more memory give the same bytes."""
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    assert budget_on(device) == budget


def test_free_memory_of_a_gpu_counts_what_torch_holds_without_using_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 4)
    assert free_memory(CUDA) == 13
    assert free_memory(CPU) > 2**20


def test_only_a_lack_of_memory_is_caught() -> None:
    assert is_out_of_memory(FULL)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))

    def fails(error: Exception) -> int:
        raise error

    assert within_memory(lambda: fails(FULL)) is None
    assert within_memory(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(lambda: fails(RuntimeError("shapes do not fit")))


def test_real_allocations_that_cannot_be_made_are_recognised() -> None:
    assert within_memory(lambda: torch.empty(2**60, dtype=torch.uint8)) is None


def test_sizes_are_halved_until_one_fits(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 3:
            raise FULL
        return f"done with {size}"

    assert halved(work, 13, "pair") == ("done with 3", 3)
    assert tried == [13, 6, 3]
    assert "going on with 3 at once (pair)" in caplog.text


def test_a_single_one_that_does_not_fit_ends_it() -> None:
    def work(_: int) -> None:
        raise FULL

    with pytest.raises(ImpossibleRequest, match=r"a single sequence\. .*execution\.n_jobs"):
        halved(work, 4, "sequence")
