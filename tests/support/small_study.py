"""A study whose checkpoints are there (random models) and whose analyses are not: for what runs `analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.models.checkpoints import weights_digest
from ontogeny.records.datasets import Checkpoints, write_checkpoints, write_dataset
from ontogeny.stages.study import Study, open_study
from ontogeny.tasks.tokenizer import train_tokenizer
from support.engine import neox_model, shake

ROOT = Path(__file__).parents[2]
WORDS = "abcdefghijklmnop"
MEMBER = "nano-s0"


def small_study(folder: Path, checkpoints: int, **execution: Any) -> Study:
    """Write params.yaml and data/ into `folder`: one member, one task on letters.

    Args:
        folder: becomes the study's.
        checkpoints: how many; each has weights of its own.
        **execution: section `execution` of its params.
    """
    settings = yaml.safe_load((ROOT / "params" / "tiny.yaml").read_text(encoding="utf-8"))
    settings["suite"]["members"] = [MEMBER]
    settings["datasets"]["tasks"] = ["letters"]
    settings["tune"]["checkpoints"] = [f"{MEMBER}@last"]
    settings["execution"] = execution
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    study = open_study(folder)
    tokenizer = train_tokenizer([" ".join(WORDS)], [f" {w}" for w in WORDS], folder / "tokenizer")
    pairs = tuple(PromptPair(f"a {x} c", f"a {y} c", (f" {x}",), (f" {y}",), "f", {}) for x, y in zip(WORDS, WORDS[3:]))
    dataset = TaskDataset("letters", "logit_diff", "other", 0, tokenizer.digest, dict.fromkeys(SPLITS, pairs))
    write_dataset(study.dataset("letters"), dataset)
    study.corpus.mkdir(parents=True)
    (study.corpus / "held_out.txt").write_text("a b c d\n" * 20, encoding="utf-8")
    write_checkpoints(study.checkpoints(MEMBER), Checkpoints(tuple(_ref(study, step) for step in range(checkpoints))))
    return study


def _ref(study: Study, step: int) -> CheckpointRef:
    """Write a checkpoint with weights of its own."""
    model, folder = neox_model.__wrapped__(double=False), study.checkpoints(MEMBER) / f"step{step}"
    shake(model, seed=step)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((study.places.study / "tokenizer" / "tokenizer.json").read_bytes())
    path = folder.relative_to(study.places.study).as_posix()
    return CheckpointRef("ladder", MEMBER, "nano", 0, step, step, path, weights_digest(folder))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
