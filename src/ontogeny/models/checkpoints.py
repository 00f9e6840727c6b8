"""Checkpoints on disk, wherever they come from: an ordered list of references a member, and a digest of the weights.

Every suite ends up as folders ``MEMBER/stepN`` of Hugging Face checkpoints and a list of `CheckpointRef`; what differs
is the *source* that brings them there. A new source is one file that registers itself here.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.params import Params

Report = Callable[[float, str], None]
"""Share done, 0 to 1, and a word on what is being done."""


class CheckpointSource(Protocol):
    """Where the checkpoints of a suite come from. Instances are small values that can be sent to a worker."""

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


MakeSource = Callable[[Params, Path, str], CheckpointSource]
"""From the params, the corpus folder and the device (``cpu`` or ``cuda``)."""
_SOURCES: dict[str, MakeSource] = {}


def register_source(name: str, make: MakeSource) -> None:
    """Make a kind of source known by its name."""
    if name in _SOURCES:
        raise ValueError(f"A source named {name!r} is registered already.")
    _SOURCES[name] = make


def checkpoint_source(name: str) -> MakeSource:
    """The kind of source called `name`.

    Raises:
        OntogenyError: there is none.
    """
    import ontogeny.models.ladder_source  # noqa: F401  (registers itself)

    if name not in _SOURCES:
        raise OntogenyError(f"There is no source of checkpoints {name!r}; choose from {', '.join(_SOURCES)}.")
    return _SOURCES[name]


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> its checkpoint, in order of training."""
    found = {int(path.name[4:]): path for path in folder.glob("step*") if path.name[4:].isdigit()}
    return dict(sorted(found.items()))


def weights_digest(folder: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of a checkpoint's tensors, first 32 hex digits.

    It does not depend on the order of the tensors or on how they are spread over files, so that a duplicate of another
    step is recognised (METHODS 1.5).

    Raises:
        BadCheckpoint: no weights there, or a file is cut short; the message names it.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint(f"{folder} holds no *.safetensors: it is no checkpoint, or was not written to its end.")
    digest = hashlib.sha256()
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
