"""Where interactive studies are kept: a journal file, or any database that Optuna takes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from ontogeny.core.errors import OntogenyError

if TYPE_CHECKING:
    from optuna.study import Study


class KernelLock(BaseJournalFileLock):
    """A lock that the kernel drops with its holder: after kill -9 nobody waits for a file that was left behind."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self.handle: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self.handle, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Let go of it."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def open_storage(address: str) -> BaseStorage:
    """A storage: a database URL (``sqlite:////PATH``, ``postgresql://...``), or the path of a journal file.

    Raises:
        OntogenyError: the database cannot be opened.
    """
    if "://" not in address:
        path = Path(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = KernelLock(path)
        _drop_torn_line(path, lock)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(address)
    except (SQLAlchemyError, ImportError) as error:
        raise OntogenyError(
            f"The storage {address} cannot be opened ({str(error).splitlines()[0]}). Give the URL of a database that "
            "is there, or leave --storage out: a journal file is used then."
        ) from None


def load_study(address: str, name: str) -> Study:
    """A study that is there.

    Raises:
        OntogenyError: it is not; the message names those that are.
    """
    import optuna

    known = study_names(address)
    if name not in known:
        raise OntogenyError(
            f"There is no study {name!r}; there are: {', '.join(known) or 'none'}. `ontogeny tune run TASK` makes one."
        )
    return optuna.load_study(study_name=name, storage=open_storage(address))


def study_names(address: str) -> list[str]:
    """All studies of a storage; a journal file that does not exist has none."""
    import optuna

    if "://" not in address and not Path(address).exists():
        return []
    return sorted(optuna.get_all_study_names(open_storage(address)))


def _drop_torn_line(path: Path, lock: KernelLock) -> None:
    """Remove a last line that a killed writer did not end: Optuna refuses a journal with one in its middle."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
