"""A study of random models whose task is learnt by construction: for stages that load checkpoints.

The right answer of a prompt is what one model (`BASE`) says there, the wrong one what it says after the corrupted
prompt. Member `small-s0` is another random model at step 8 and `BASE` from step 32 on, a little shaken in between;
`small-s1` is the same with its heads shuffled within layers: it computes the same under other names.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.execution.jobs import Job, Outcome
from ontogeny.models.checkpoints import weights_digest
from ontogeny.models.subject import subject_of
from ontogeny.records.datasets import Checkpoints, write_checkpoints, write_dataset
from ontogeny.stages.study import Study, open_study
from ontogeny.tasks.tokenizer import train_tokenizer
from support.engine import neox_model, shake

ROOT = Path(__file__).parents[2]
WORDS = "abcdefghijklmnopqrst"
TASK = "letters"
STEPS = (8, 16, 32)
TO = np.array([[2, 0, 1], [1, 2, 0]])
"""Head (l, h) of `small-s0` is head (l, TO[l, h]) of `small-s1`."""
LAYERS, HEADS, SIZE = 2, 3, 8


def shuffled(model: Any) -> Any:
    """The same function, with head (l, h) in the place of head (l, TO[l, h])."""
    model = copy.deepcopy(model)
    for layer, to in zip(model.gpt_neox.layers, TO.tolist()):
        attention = layer.attention
        for parameter in (attention.query_key_value.weight, attention.query_key_value.bias):
            by_head = parameter.data.view(HEADS, 3 * SIZE, -1)
            by_head[to] = by_head.clone()
        columns = attention.dense.weight.data.view(-1, HEADS, SIZE)
        columns[:, to] = columns.clone()
    return model


def models() -> dict[int, Any]:
    """Step -> model of `small-s0`."""
    base = neox_model(double=False)
    other, near = copy.deepcopy(base), copy.deepcopy(base)
    shake(other, seed=5)
    generator = torch.Generator().manual_seed(7)
    for parameter in near.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return dict(zip(STEPS, (other, near, base)))


def letters_study(folder: Path) -> Study:
    """Write params.yaml, the data set and both members' checkpoints; nothing is analysed yet."""
    (folder / "data").mkdir(parents=True)
    settings = yaml.safe_load((ROOT / "params" / "tiny.yaml").read_text())
    settings["suite"]["members"] = ["small-s0", "small-s1"]
    settings["checkpoints"]["scales"] = {"small": {"layers": LAYERS, "heads": HEADS, "d_model": HEADS * SIZE}}
    settings["datasets"] = {"tasks": [TASK], "seed": 0, "sizes": {}, "corruptions": {}}
    settings["tune"]["checkpoints"] = ["small-s0@last"]
    settings["transfer"] |= {"random_matchings": 3, "ablated_anchors": 2}
    settings["analyse"]["roles"]["attention"] |= {"sequences": 4, "longest": 8}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    study = open_study(folder)
    study.corpus.mkdir(parents=True)
    (study.corpus / "held_out.txt").write_text("\n".join(" ".join(WORDS[i:]) for i in range(10)))
    for member, change in (("small-s0", copy.deepcopy), ("small-s1", shuffled)):
        _write_member(study, member, change)
    return study


def _write_member(study: Study, member: str, change: Callable[[Any], Any]) -> None:
    refs = []
    for step, model in models().items():
        path = study.checkpoints(member) / f"step{step}"
        change(model).save_pretrained(path)
        tokenizer = train_tokenizer([" ".join(WORDS)], [f" {w}" for w in WORDS], path)
        where = path.relative_to(study.places.study).as_posix()
        seed = int(member[-1])
        refs.append(CheckpointRef("ladder", member, "small", seed, step, 8 * step, where, weights_digest(path)))
    write_checkpoints(study.checkpoints(member), Checkpoints(tuple(refs)))
    if not study.dataset(TASK).exists():
        write_dataset(study.dataset(TASK), _letters(subject_of(neox_model(double=False), tokenizer=tokenizer)))


def _letters(subject: Any) -> TaskDataset:
    tokenizer = subject.tokenizer
    ids = torch.tensor([tokenizer.encode(f" {w}")[0] for w in WORDS])

    def says(prompt: str) -> str:
        tokens = torch.tensor([tokenizer.encode(prompt)])
        return f" {WORDS[int(subject.logits(tokens, torch.tensor([tokens.shape[1]]))[0][ids].argmax())]}"

    def pairs(first: str) -> tuple[PromptPair, ...]:
        found = []
        for x, y in [(x, y) for x in WORDS for y in WORDS if x < y]:
            clean, corrupted = f"{first} {x} c", f"{first} {y} c"
            right, wrong = says(clean), says(corrupted)
            if right != wrong:
                found.append(PromptPair(clean, corrupted, (right,), (wrong,), "f", {}))
        return tuple(found[:24])

    splits = {split: pairs(first) for split, first in zip(SPLITS, "abd")}
    return TaskDataset(TASK, "logit_diff", "other", 0, tokenizer.digest, splits)


class Here:
    """Stands for an executor: does the jobs in this process."""

    def run(self, jobs: Sequence[Job], progress: object, more: Callable[[], Sequence[Job]] = tuple) -> list[Outcome]:
        """Outcomes in the jobs' order."""
        del progress
        outcomes: list[Outcome] = []
        while jobs := list(jobs) or list(more()):
            outcomes += [Outcome(job, _error(job)) for job in jobs]
            jobs = ()
        return outcomes


def _error(job: Job) -> str | None:
    try:
        job.function(*job.arguments, report=_told)
    except Exception as error:
        return str(error)
    return None


def _told(share: float, note: str = "") -> None:
    assert 0 <= share <= 1
    assert isinstance(note, str)


def damage(path: Path) -> Callable[[], None]:
    """Cut a file short; what puts it right again."""
    whole = path.with_suffix(".whole")
    shutil.copy(path, whole)
    path.write_bytes(whole.read_bytes()[:-200])
    return lambda: shutil.move(whole, path)
