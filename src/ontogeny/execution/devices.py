"""Which device each worker computes on: several GPUs of a machine are shared out, one worker each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.jobs import cores

VISIBLE = "CUDA_VISIBLE_DEVICES"


def worker_environments(device: str, n_jobs: int | None, gpus: Sequence[str] = ()) -> list[dict[str, str]]:
    """The environment of each worker; there are as many workers as this is long.

    On ``cuda`` every worker sees one GPU only, which is its ``cuda``; there is one worker a GPU, or `n_jobs` workers,
    dealt out evenly. On ``cuda:N`` and ``mps`` there is one worker unless `n_jobs` says otherwise: they share it.

    Args:
        device: `execution.device`.
        n_jobs: workers that are asked for; None: as many as fit the device.
        gpus: names of the GPUs that may be used, as `CUDA_VISIBLE_DEVICES` has them.
    """
    if device == "cuda" and gpus:
        return [{VISIBLE: gpus[worker % len(gpus)]} for worker in range(n_jobs or len(gpus))]
    return [{} for _ in range(n_jobs or (cores() if device == "cpu" else 1))]


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process may use, as a worker's `CUDA_VISIBLE_DEVICES` takes them."""
    import torch

    count = torch.cuda.device_count()
    listed = os.environ.get(VISIBLE)
    names = [str(place) for place in range(count)] if listed is None else listed.split(",")
    return tuple(name.strip() for name in names[:count])


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here, before any work.

    Raises:
        OntogenyError: it is not there; the message says what is.
    """
    import torch

    kind, _, place = device.partition(":")
    if kind == "cuda" and int(place or 0) >= torch.cuda.device_count():
        seen = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
        raise OntogenyError(
            f"execution.device is {device}, but GPUs that torch sees: {seen}. Set execution.device: cpu, or install "
            "the CUDA build of torch and the driver."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise OntogenyError("execution.device is mps, but torch has no MPS here. Set execution.device: cpu.")
