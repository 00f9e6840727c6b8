"""Checkpoints of a hub on this machine's disk: fetched once, checked, in use, and making room for others.

They lie in the hub's own cache (HF_HOME), where other programs find them too. Beside it, in ``ontogeny/``, are notes of
what was fetched from here: only that is ever removed. One process downloads at a time. Who uses a checkpoint holds a
shared lock on its note, which the kernel drops with its holder, so that what is in use is never removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.models.hub import HubFile, Pin, asked

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LOOKS = 0.2
_BLOCK = 2**22


class NoRoom(Exception):
    """There is no room on the disk as long as others are in use."""


@dataclass(frozen=True)
class Note:
    """A checkpoint in the hub's cache."""

    repository: str
    commit: str
    bytes: int
    ours: bool
    """Fetched from here: may be removed."""
    kept: bool
    """Needed again: removed only when nothing else is left to remove."""
    checked: dict[str, tuple[int, int]] = field(default_factory=dict)
    """File -> size and time of change when its content was last compared with its hash; empty until it is whole."""


@dataclass(frozen=True)
class HubCache:
    """The checkpoints on this machine."""

    budget: int | None
    """Bytes that fetched checkpoints may take; None: no limit but the disk's."""

    @property
    def hub(self) -> Path:
        """The hub's cache."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    @property
    def folder(self) -> Path:
        """Notes, locks and partial files."""
        return self.hub.parent / "ontogeny"

    @contextmanager
    def opened(self, pin: Pin, *, kept: bool = False) -> Iterator[Path]:
        """The folder of a checkpoint, fetched if need be, and there while the block lasts.

        Raises:
            BadCheckpoint: what arrived, or lies there, is not what was pinned.
            OntogenyError: it cannot be fetched, or the disk is full.
        """
        with self._lease(pin.commit):
            while not self.is_whole(pin):
                try:
                    self.fetch(pin, kept=kept, waiting=())
                except NoRoom:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            try:
                yield self.snapshot(pin)
            finally:
                self._used(pin.commit).touch()

    def snapshot(self, pin: Pin) -> Path:
        """Where the files of a checkpoint are, or would be."""
        return self.hub / f"models--{pin.repository.replace('/', '--')}" / "snapshots" / pin.commit

    def is_whole(self, pin: Pin) -> bool:
        """Whether all its files are there, and are those that were checked."""
        note = self._read(pin.commit)
        if note is None or not note.checked:
            return False
        return all(note.checked.get(file.name) == _state(self.snapshot(pin) / file.name) for file in pin.files)

    def missing(self, pin: Pin) -> int:
        """Bytes that are still to be downloaded."""
        return sum(file.bytes for file in pin.files if not (self.snapshot(pin) / file.name).exists())

    def fetch(self, pin: Pin, *, kept: bool, waiting: Sequence[str]) -> None:
        """Download what is missing of a checkpoint, after making room, and check it.

        Args:
            pin: the checkpoint.
            kept: it will be needed again.
            waiting: commits that were fetched ahead and must stay. With any given there must be room within the
                budget; without, one checkpoint more than the budget is allowed.

        Raises:
            NoRoom: not now.
            BadCheckpoint, OntogenyError: as `opened`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / "download.lock"):
            if self.is_whole(pin):
                return
            self._make_room(pin, waiting)
            before = self._read(pin.commit)
            ours = before.ours if before is not None else self.missing(pin) > 0
            self._write(Note(pin.repository, pin.commit, pin.bytes, ours, kept))
            try:
                self._download(pin)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise self._full(pin) from error
            self._write(Note(pin.repository, pin.commit, pin.bytes, ours, kept, self._checked(pin)))

    def used_at(self, commit: str) -> float:
        """When a checkpoint was last given back; 0: never."""
        try:
            return self._used(commit).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def in_use(self, commit: str) -> bool:
        """Whether somebody has it open."""
        with self._idle(commit) as idle:
            return not idle

    @property
    def bytes(self) -> int:
        """Of all that was fetched from here and is still there."""
        return sum(note.bytes for note in self._notes() if note.ours)

    # --- Room ------------------------------------------------------------------------------------------------------

    def _make_room(self, pin: Pin, waiting: Sequence[str]) -> None:
        """Remove what was least recently needed until `pin` fits into the budget and onto the disk."""
        held = self.bytes - sum(n.bytes for n in self._notes() if n.ours and n.commit == pin.commit)
        over = 0 if self.budget is None else held + pin.bytes - self.budget
        self._remove(over, pin, waiting)
        held = self.bytes - sum(n.bytes for n in self._notes() if n.ours and n.commit == pin.commit)
        if self.budget is not None and held + pin.bytes > self.budget and (waiting or held > self.budget):
            raise NoRoom
        lacking = self.missing(pin) - shutil.disk_usage(_existing(self.hub)).free
        if lacking > 0 and self._remove(lacking, pin, waiting) < lacking:
            raise self._full(pin)

    def _remove(self, wanted: int, pin: Pin, waiting: Sequence[str]) -> int:
        """Remove checkpoints until `wanted` bytes are free, those kept for later last; the bytes removed."""
        removed = 0
        candidates = [n for n in self._notes() if n.ours and n.commit != pin.commit and n.commit not in waiting]
        for note in sorted(candidates, key=lambda n: (n.kept, self.used_at(n.commit) or self._fetched_at(n.commit))):
            if removed >= wanted:
                break
            with self._idle(note.commit) as idle:
                if idle:
                    self._delete(note)
                    removed += note.bytes
        return removed

    def _delete(self, note: Note) -> None:
        """Take a checkpoint out of the hub's cache; blobs that other revisions share stay."""
        from huggingface_hub import scan_cache_dir

        log.info("Making room: %s at %s (%.1f GB) is removed.", note.repository, note.commit[:8], note.bytes / 1e9)
        if self.hub.exists():
            scan_cache_dir(self.hub).delete_revisions(note.commit).execute()
        self._note(note.commit).unlink(missing_ok=True)
        self._used(note.commit).unlink(missing_ok=True)

    def _full(self, pin: Pin) -> OntogenyError:
        free = shutil.disk_usage(_existing(self.hub)).free
        return OntogenyError(
            f"The disk is full: {self.hub} has {free / 1e9:.1f} GB left, {pin.repository} at {pin.revision} takes "
            f"{pin.bytes / 1e9:.1f} GB. Make room, set HF_HOME to a larger disk, or lower execution.disk_gb; what is "
            "done is kept."
        )

    # --- Downloading -----------------------------------------------------------------------------------------------

    def _download(self, pin: Pin) -> None:
        for file in pin.files:
            if (self.snapshot(pin) / file.name).exists():
                continue
            if file.large:
                self._download_large(pin, file)
            asked(pin.repository, lambda file=file: _hub_download(pin, file))  # type: ignore[misc]

    def _download_large(self, pin: Pin, file: HubFile) -> None:
        """Put a large file among the cache's blobs, going on from what an interrupted download left.

        Files that the hub serves by Xet are left to its own client, which keeps the chunks that have arrived.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers
        from huggingface_hub.utils._runtime import is_xet_available

        blob = self.snapshot(pin).parents[1] / "blobs" / file.hash
        if blob.exists():
            return
        url = hf_hub_url(pin.repository, file.name, revision=pin.commit)
        facts = asked(pin.repository, lambda: get_hf_file_metadata(url))
        if facts.xet_file_data is not None and is_xet_available():
            return
        if facts.size is not None and facts.size != file.bytes:
            raise BadCheckpoint(
                f"{file.name} of {pin.repository} at {pin.revision} has {facts.size} bytes, {file.bytes} were pinned: "
                "the hub serves another file than it lists. Try again later, or delete its file in .cache/pins."
            )
        partial = self.folder / "partial" / file.hash
        partial.parent.mkdir(parents=True, exist_ok=True)

        def go_on() -> None:
            with partial.open("ab") as handle:
                if handle.tell() < file.bytes:
                    http_get(
                        url, handle, resume_size=handle.tell(), headers=build_hf_headers(), expected_size=None,
                        displayed_filename=f"{pin.repository} {pin.revision}",
                    )  # fmt: skip

        asked(pin.repository, go_on)
        if partial.stat().st_size != file.bytes:
            partial.unlink()
            raise _tampered(pin, file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(partial, blob)

    def _checked(self, pin: Pin) -> dict[str, tuple[int, int]]:
        """State of each file, all compared with their sizes and hashes."""
        found = {}
        for file in pin.files:
            path = self.snapshot(pin) / file.name
            digest = _sha256(path) if file.large else git_hash(path)
            if path.stat().st_size != file.bytes or digest != file.hash:
                path.resolve().unlink()
                path.unlink(missing_ok=True)
                raise _tampered(pin, file)
            found[file.name] = _state(path)
        return {name: state for name, state in found.items() if state is not None}

    # --- Notes and locks -------------------------------------------------------------------------------------------

    def _note(self, commit: str) -> Path:
        return self.folder / "notes" / f"{commit}.json"

    def _used(self, commit: str) -> Path:
        return self.folder / "notes" / f"{commit}.used"

    def _fetched_at(self, commit: str) -> float:
        return self._note(commit).stat().st_mtime

    def _read(self, commit: str) -> Note | None:
        try:
            data = json.loads(self._note(commit).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        data["checked"] = {name: tuple(state) for name, state in data["checked"].items()}
        return Note(**data)

    def _notes(self) -> list[Note]:
        names = [path.stem for path in sorted((self.folder / "notes").glob("*.json"))]
        return [note for note in map(self._read, names) if note is not None]

    def _write(self, note: Note) -> None:
        path = self._note(note.commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(asdict(note)), encoding="utf-8")
        temporary.replace(path)

    @contextmanager
    def _lease(self, commit: str) -> Iterator[None]:
        """Keep a checkpoint from being removed."""
        with _locked(self.folder / "in-use" / commit, shared=True):
            yield

    @contextmanager
    def _idle(self, commit: str) -> Iterator[bool]:
        """Whether nobody has it open; nobody can open it while the block lasts, if so."""
        with _locked(self.folder / "in-use" / commit, wait=False) as held:
            yield held


@contextmanager
def _locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file, which stays; with `wait` false: whether it could be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _hub_download(pin: Pin, file: HubFile) -> str:
    """Let the hub's client fetch a file, or link it where its content is there already."""
    from huggingface_hub import hf_hub_download

    return hf_hub_download(pin.repository, file.name, revision=pin.commit)


def _tampered(pin: Pin, file: HubFile) -> BadCheckpoint:
    return BadCheckpoint(
        f"{file.name} of {pin.repository} at {pin.revision} is not what the hub lists: its size or hash is another. "
        "What arrived was removed: run the same again; if it comes again, the hub or a proxy changes the file."
    )


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change; None if it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash(path: Path) -> str:
    """Git's object id of a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _existing(path: Path) -> Path:
    """The first folder above `path`, or itself, that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
