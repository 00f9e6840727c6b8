"""Checkpoints, wherever they come from: an ordered list of references a member, and a digest of the weights.

Every suite ends up as a list of `CheckpointRef` and, one at a time, folders of Hugging Face checkpoints; what differs
is the *source*: it trains them, or names and fetches those that exist. A new source is one file that registers itself
here.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.core.schedule import Analysis
from ontogeny.params import Params

Report = Callable[[float, str], None]
"""Share done, 0 to 1, and a word on what is being done."""


@dataclass(frozen=True)
class Forecast:
    """A checkpoint that is to be analysed, before anything is done about it."""

    step: int
    tokens: int
    """Tokens of training before it."""
    analyses: tuple[Analysis, ...]
    """What it is to be analysed for."""
    bytes: int
    """Of its files on the disk."""
    missing: int
    """Bytes of those that are still to be downloaded."""


class Opener(Protocol):
    """Gives out the folder of a checkpoint. Instances are small values that can be sent to a worker."""

    def opened(self, ref: CheckpointRef) -> AbstractContextManager[Path]:
        """The Hugging Face folder of a checkpoint, which is there, whole and unchanged while the block lasts.

        Raises:
            BadCheckpoint: it is not what the reference says, or it cannot be had.
        """
        ...


class CheckpointSource(Opener, Protocol):
    """Where the checkpoints of a suite come from: it says what there is, before any work, and opens them.

    A source is a `TrainedSource` or a `FoundSource`.
    """

    def check(self) -> None:
        """Refuse, before any work, what the params ask for and cannot be had.

        Raises:
            OntogenyError: an unknown model or step, no tokenizer, or another one than the study's; says what to do.
        """
        ...

    def forecast(self, member: str) -> tuple[Forecast, ...]:
        """The checkpoints of `member` that are to be analysed, in order of training."""
        ...

    def config(self, member: str) -> dict[str, Any]:
        """The member's config.json: its shape."""
        ...

    def ahead(self, refs: Sequence[CheckpointRef]) -> AbstractContextManager[None]:
        """While the block lasts, fetch what `refs` need, in their order, ahead of those that open them."""
        ...


@runtime_checkable
class TrainedSource(CheckpointSource, Protocol):
    """A source that makes its checkpoints; all of them are analysed for everything."""

    def facts(self, member: str) -> dict[str, object]:
        """All that the weights of `member` depend on, as JSON: the same facts promise the same weights."""
        ...

    def cost(self, member: str) -> float:
        """How much work `bring` is, in any unit: the longest starts first."""
        ...

    def tokens(self, step: int) -> int:
        """Tokens of training before `step`."""
        ...

    def bring(self, member: str, folder: Path, report: Report) -> None:
        """Put each checkpoint of `member` into ``folder/stepN``, going on from what an interrupted call left there.

        Raises:
            OntogenyError: it cannot be done; the checkpoints that could be brought stay.
        """
        ...


@runtime_checkable
class FoundSource(CheckpointSource, Protocol):
    """A source whose checkpoints exist elsewhere: it names them, with hashes, once and for all."""

    def references(self, member: str, folder: Path) -> tuple[CheckpointRef, ...]:
        """The checkpoints of `member` to be analysed, in order of training; `folder` takes what `opened` needs.

        Raises:
            OntogenyError: they cannot be found or read.
        """
        ...


MakeSource = Callable[[Params, Path, Path], CheckpointSource]
"""From the params, the study's folder (which holds data/) and the project's (which the params' paths start from)."""
_SOURCES: dict[str, MakeSource] = {}


def register_source(name: str, make: MakeSource) -> None:
    """Make a kind of source known by its name, a value of `suite.source`."""
    if name in _SOURCES:
        raise ValueError(f"A source named {name!r} is registered already.")
    _SOURCES[name] = make


def checkpoint_source(params: Params, study: Path, project: Path) -> CheckpointSource:
    """The source of the suite that `params` name.

    Raises:
        OntogenyError: there is no source of that name.
    """
    import ontogeny.models.folder_source
    import ontogeny.models.hub_source
    import ontogeny.models.ladder_source  # noqa: F401  (register themselves)

    name = params.suite.source
    if name not in _SOURCES:
        raise OntogenyError(f"There is no source of checkpoints {name!r}; choose from {', '.join(sorted(_SOURCES))}.")
    return _SOURCES[name](params, study, project)


@dataclass(frozen=True)
class StudyFolders:
    """Opens checkpoints that lie on this machine: their `path` is relative to `root`, or absolute."""

    root: Path

    @contextmanager
    def opened(self, ref: CheckpointRef) -> Iterator[Path]:
        """The folder, if its weights are those of the reference."""
        folder = self.root / ref.path
        digest = weights_digest(folder)
        if digest != ref.weights_digest:
            raise BadCheckpoint(
                f"{ref.path} was changed: its weights have the digest {digest}, expected was {ref.weights_digest}. "
                "Delete the folder of its member in data/checkpoints and run the study again."
            )
        yield folder


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> its checkpoint, in order of training."""
    found = {int(path.name[4:]): path for path in folder.glob("step*") if path.name[4:].isdigit()}
    return dict(sorted(found.items()))


def weight_files(folder: Path) -> list[Path]:
    """The files with a checkpoint's weights: safetensors, or else PyTorch's own."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def weights_digest(folder: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of a checkpoint's tensors, first 32 hex digits.

    It does not depend on the order of the tensors or on how they are spread over files, so that a duplicate of another
    step is recognised (METHODS 1.5). Of PyTorch's own files it is the hash of the files.

    Raises:
        BadCheckpoint: no weights there, or a file is cut short; the message names it.
    """
    files = weight_files(folder)
    if not files:
        raise BadCheckpoint(
            f"{folder} holds no *.safetensors or pytorch_model*.bin: it is no checkpoint, or was not written to its "
            "end."
        )
    digest = hashlib.sha256()
    if files[0].suffix == ".bin":
        for file in files:
            with file.open("rb") as handle:
                digest.update(f"{file.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()[:32]
    for name, facts, content in sorted((t for file in files for t in _tensors(file)), key=lambda t: t[0]):
        digest.update(f"{name} {facts}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _tensors(file: Path) -> Iterator[tuple[str, str, memoryview]]:
    """Name, type and shape, and bytes of each tensor, read without torch."""
    if file.stat().st_size < 8:
        raise BadCheckpoint(f"{file} is cut short: {file.stat().st_size} bytes. Replace the file.")
    with file.open("rb") as handle:
        data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header: Mapping[str, Any] = json.loads(bytes(data[8:start]))
    except ValueError:
        raise BadCheckpoint(f"{file} is damaged or cut short: its header cannot be read. Replace the file.") from None
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        first, last = facts["data_offsets"]
        if start + last > len(data):
            raise BadCheckpoint(f"{file} is cut short: {len(data)} bytes of {start + last}. Replace the file.")
        yield name, f"{facts['dtype']} {facts['shape']}", data[start + first : start + last]
