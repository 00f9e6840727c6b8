"""Jobs for the pool's tests: a worker imports them by name."""

import os
import signal
import time
from pathlib import Path

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.jobs import Report


def write(path: Path, report: Report) -> None:
    import torch

    report(0.5, "half")
    path.write_text(f"{os.getpid()} {torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}")


def refuse(**_: object) -> None:
    raise OntogenyError("step8/model.safetensors is\ncut short")


def stumble(**_: object) -> None:
    raise ZeroDivisionError("oops")


def fill_disk(**_: object) -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def die_once(path: Path, **_: object) -> None:
    """Killed the first time, well the second."""
    if not path.exists():
        path.write_text("first")
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text("second")


def die(**_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count_alone(path: Path, **_: object) -> None:
    """Reads, waits, writes: loses a count unless it is alone."""
    before = int(path.read_text()) if path.exists() else 0
    time.sleep(0.1)
    path.write_text(str(before + 1))


def linger(path: Path, **_: object) -> None:
    """Tells its process, and stays."""
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(600)
