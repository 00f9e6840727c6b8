"""What a kill, or a full disk, can leave of DVC's own files, made whole before DVC reads them.

DVC writes both of these in place, and refuses to work when it finds half a file.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import psutil
import yaml

log = logging.getLogger(__name__)


def mend(folder: Path) -> None:
    """Mend the DVC project in `folder`, in which no DVC of ours is at work."""
    drop_broken_lock(folder / "dvc.lock")
    forget_dead_readers(folder / ".dvc" / "tmp" / "rwlock")


def drop_broken_lock(path: Path) -> None:
    """Remove a dvc.lock of which a kill left only a part.

    Without it every stage runs again, and finds its results in DVC's and our own caches.
    """
    if not path.exists():
        return
    try:
        whole = isinstance(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"], dict)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        whole = False
    if not whole:
        log.warning("dvc.lock was cut short when DVC was killed: it is made anew from the caches.")
        path.unlink()


def forget_dead_readers(path: Path) -> None:
    """Drop from DVC's list of who reads and writes what those that were killed; the list itself if it was cut short.

    DVC drops those whose process id is free. One that another program has taken meanwhile would block it for ever.
    """
    if not path.exists():
        return
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        writers = {what: who for what, who in listed["write"].items() if _lives(who)}
        readers = {what: [who for who in several if _lives(who)] for what, several in listed["read"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        path.unlink()
        return
    kept = {"write": writers, "read": {what: several for what, several in readers.items() if several}}
    if kept != listed:
        path.write_text(json.dumps(kept), encoding="utf-8")


def _lives(who: dict[str, Any]) -> bool:
    """Whether the process that DVC noted is there, and is a DVC."""
    try:
        return any("dvc" in word for word in psutil.Process(int(who["pid"])).cmdline())
    except psutil.Error:
        return False
