"""Which worker gets which GPU, and what is refused; no GPU is needed to tell."""

import pytest
import torch

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.devices import check_device, visible_gpus, worker_environments
from ontogeny.execution.jobs import cores


def test_every_gpu_gets_a_worker_that_sees_nothing_else() -> None:
    assert worker_environments("cuda", None, ("2", "3", "5")) == [
        {"CUDA_VISIBLE_DEVICES": "2"},
        {"CUDA_VISIBLE_DEVICES": "3"},
        {"CUDA_VISIBLE_DEVICES": "5"},
    ]


def test_more_workers_than_gpus_share_them_evenly_and_fewer_leave_some_idle() -> None:
    seen = [place["CUDA_VISIBLE_DEVICES"] for place in worker_environments("cuda", 5, ("0", "1"))]
    assert seen == ["0", "1", "0", "1", "0"]
    assert len(worker_environments("cuda", 1, ("0", "1"))) == 1


def test_elsewhere_workers_change_nothing_in_their_environment() -> None:
    assert worker_environments("cpu", None) == [{}] * cores()
    assert worker_environments("cpu", 3) == [{}] * 3
    assert worker_environments("cuda:1", None, ("0", "1")) == [{}]
    assert worker_environments("mps", None) == [{}]


@pytest.mark.parametrize(("listed", "names"), [(None, ("0", "1")), ("4, GPU-abc", ("4", "GPU-abc"))])
def test_only_visible_gpus_are_dealt_out(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == names


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"card {place}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cpu", "cuda", "cuda:0"):
        check_device(device)
    with pytest.raises(OntogenyError, match=r"cuda:1, but GPUs that torch sees: card 0\. Set execution\.device: cpu"):
        check_device("cuda:1")
    with pytest.raises(OntogenyError, match="torch has no MPS here"):
        check_device("mps")
