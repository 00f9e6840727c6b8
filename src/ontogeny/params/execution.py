"""Sections `figures`, `execution` and `tracking`: how results are shown, computed and published."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ontogeny.params.section import Section


class FiguresParams(Section):
    """How pictures are written."""

    formats: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    dpi: Annotated[int, Field(ge=50, le=600)] = 120


class RayParams(Section):
    """Which Ray cluster, and what a job takes of it; for executor `ray`."""

    address: str | None = None
    """HOST:PORT or `auto`; null: the environment's RAY_ADDRESS, or else a Ray that is started on this machine."""
    gpus_per_job: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a GPU, where `device` is cuda."""


class ExecutionParams(Section):
    """How work is spread; in no fingerprint, as it changes no number."""

    executor: Literal["local", "ray"] = "local"
    """`local`: processes of this machine; `ray`: tasks of a Ray cluster whose nodes share this project's folder."""
    ray: RayParams = RayParams()
    n_jobs: Annotated[int, Field(ge=1)] | None = None
    """Workers of one torch thread each; null: one a core, on GPUs one a GPU, with Ray as many as the cluster takes."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    """`cuda`: all GPUs, one worker each; `cuda:N`: that one."""
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    """Of a hub suite: gigabytes (1e9 bytes) of downloaded checkpoints that may lie on the disk; analysed ones make room
    for others. null: all are kept."""

    @model_validator(mode="after")
    def _ray_chooses_the_gpu(self) -> Self:
        if self.executor == "ray" and self.device not in ("cpu", "cuda"):
            raise ValueError(f"with executor ray, device is cpu or cuda (Ray chooses the GPU), not {self.device}")
        return self


class TrackingParams(Section):
    """Where MLflow is."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "default"
    uri: str | None = None
    """null: the SQLite file under mlruns/. The environment's MLFLOW_TRACKING_URI wins."""
