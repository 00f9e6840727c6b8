"""Data sets and lists of checkpoints on disk."""

from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.core.pairs import PromptPair, TaskDataset
from ontogeny.records import Failure
from ontogeny.records.datasets import (
    Checkpoints,
    read_checkpoints,
    read_dataset,
    write_checkpoints,
    write_dataset,
)
from support.record_examples import ref


def dataset() -> TaskDataset:
    pair = PromptPair("A b", "A c", (" d",), (" e", " f"), "frame-1", {"IO": "A"})
    return TaskDataset("ioi", "logit_diff", "s2_io", 0, "tokens", {"discover": (pair,), "held_out": (pair, pair)})


def test_a_dataset_survives_the_disk(tmp_path: Path) -> None:
    write_dataset(tmp_path, dataset())
    back = read_dataset(tmp_path)
    assert back == dataset()
    assert back.digest == dataset().digest


def test_a_dataset_changed_by_hand_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, dataset())
    file = tmp_path / "dataset.json"
    file.write_text(file.read_text().replace("A c", "A d"))
    with pytest.raises(OntogenyError, match="was changed after it was generated"):
        read_dataset(tmp_path)


def test_a_list_of_checkpoints_survives_the_disk(tmp_path: Path) -> None:
    checkpoints = Checkpoints((ref(0), ref(8)), (Failure("small-s0", None, "data/checkpoints/small-s0", "stopped"),))
    write_checkpoints(tmp_path, checkpoints)
    assert read_checkpoints(tmp_path) == checkpoints
