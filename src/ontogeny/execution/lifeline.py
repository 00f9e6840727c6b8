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
