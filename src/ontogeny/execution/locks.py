"""File locks that the kernel drops when their holder ends, however it ends; who waits is told for whom."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, holder: str) -> Iterator[None]:
    """Hold the lock file `path`; wait for it if need be. `holder` is what others are told they wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(path)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{holder} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    """An open, locked handle of the file that bears the name `path` now (its last holder removed the one before)."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 1000, 0).decode(errors="replace") or "another process"
            log.warning("Waiting for %s, which holds %s.", owner, path.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_current(handle, path):
            return handle
        os.close(handle)


def _is_current(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
