"""No orphans: every process of ours ends when its parent does.

After `kill -9` of `dvc repro` its stage would go on and write into the outputs of the run that resumes it. On Linux
the kernel sends a signal when the parent's thread ends (PR_SET_PDEATHSIG); the parent may have died before that was
set, so its id is checked afterwards. Elsewhere processes of ours may outlive their parent; locks still keep order.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Ask for SIGKILL when the parent ends.

    Args:
        parent: process id that the parent must have; if it is another, the parent has ended and so do we.
    """
    if sys.platform != "linux":
        return
    expected = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_dvc() -> None:
    """For a stage: end when the `dvc` that started it ends (by `exec` in dvc.yaml it is our parent)."""
    if "DVC_STAGE" not in os.environ or sys.platform != "linux":
        return
    die_with_parent()
    if b"dvc" not in _command_line(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
