"""Frozen data sets and lists of checkpoints on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ontogeny.core.errors import OntogenyError
from ontogeny.core.pairs import TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.records.files import read_json, write_json
from ontogeny.records.member import Failure
from ontogeny.records.values import unpack

DATASET = "dataset.json"
REFS = "refs.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a member, in order of training, and what could not be had."""

    refs: tuple[CheckpointRef, ...]
    failures: tuple[Failure, ...] = ()


def write_dataset(folder: Path, dataset: TaskDataset) -> None:
    """Write `dataset` and its digest."""
    write_json(folder / DATASET, dataset.to_json() | {"digest": dataset.digest})


def read_dataset(folder: Path) -> TaskDataset:
    """Inverse of `write_dataset`.

    Raises:
        OntogenyError: there is none, or it was changed by hand: its digest is another.
    """
    data = read_json(folder / DATASET)
    digest = data.pop("digest", None)
    dataset = TaskDataset.from_json(data)
    if dataset.digest != digest:
        raise OntogenyError(
            f"{folder / DATASET} was changed after it was generated: its digest is {dataset.digest}, it says {digest}. "
            "Delete it and run `make study` again."
        )
    return dataset


def write_checkpoints(folder: Path, checkpoints: Checkpoints) -> None:
    """Write the list beside the checkpoints."""
    refs = [asdict(ref) for ref in checkpoints.refs]
    write_json(folder / REFS, {"refs": refs, "failures": [asdict(failure) for failure in checkpoints.failures]})


def read_checkpoints(folder: Path) -> Checkpoints:
    """Inverse of `write_checkpoints`.

    Raises:
        OntogenyError: there is no list, or it cannot be read.
    """
    data = read_json(folder / REFS)
    refs = tuple(unpack(CheckpointRef, item, {}) for item in data["refs"])
    return Checkpoints(refs, tuple(Failure(**item) for item in data["failures"]))
