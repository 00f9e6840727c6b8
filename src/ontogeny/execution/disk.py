"""A full disk: told from other errors, whoever noticed it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = (*map(os.strerror, _NUMBERS), "database or disk is full")
"""What libraries say that keep no error number: safetensors, shutil.copytree, SQLite."""
_LEFT = 4 << 20
"""Bytes; with less than that hardly a file of ours can be written."""


def says_full(said: str) -> bool:
    """Whether a message tells of a full disk."""
    return any(words in said for words in _WORDS)


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is that the disk is full."""
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    origin = error.__cause__ or error.__context__
    return says_full(str(error)) or (origin is not None and is_full(origin))


def full_disk(where: str = "") -> OSError:
    """The error to raise where work ends because of it."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([where] if where else []))


def hardly_any_left(folder: Path) -> bool:
    """Whether the disk that a folder is on has no room left to work with."""
    return shutil.disk_usage(folder).free < _LEFT
