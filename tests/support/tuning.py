"""A checkpoint on which settings can be tried in a second, and made-up trials.

The model is random; its task is to say what it says anyway: the right answer of a prompt is the token that the model
prefers there, the wrong one what it prefers after the corrupted prompt. So the task is learned by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef, Estimate
from ontogeny.core.stability import Quantiles
from ontogeny.core.tuning import (
    Carried,
    EnoughSteps,
    Evaluation,
    Recommendation,
    ScoreSetting,
    StepQuality,
    Trial,
    TunedCheckpoint,
    TuningRecord,
    setting,
)
from ontogeny.execution.jobs import Job
from ontogeny.models.checkpoints import StudyFolders, weights_digest
from ontogeny.models.subject import subject_of
from ontogeny.params import AnalyseParams, BehaviourParams, SpaceParams, TruthParams, TuneParams, TuneResamplingParams
from ontogeny.records.datasets import write_dataset
from ontogeny.tasks.tokenizer import train_tokenizer
from ontogeny.tuning.bench import Place
from ontogeny.tuning.study import baseline_name
from support.engine import neox_model

WORDS = "abcdefghijklmnopqrst"
SPACE = SpaceParams(
    method=("eap", "eap_ig"), rule=("right",), steps=(5, 30), selection=("greedy",), threshold=(0.6, 0.8),
    examples=(0.5, 1.0),
)  # fmt: skip


def place(root: Path, **tune: Any) -> Place:
    """A checkpoint of a random model under `root`, with its task and an empty job cache."""
    model, folder = neox_model(double=False), root / "data" / "step8"
    model.save_pretrained(folder)
    tokenizer = train_tokenizer([" ".join(WORDS)], [f" {w}" for w in WORDS], folder)
    subject = subject_of(model, tokenizer=tokenizer)
    ids = torch.tensor([tokenizer.encode(f" {w}")[0] for w in WORDS])

    def says(prompt: str) -> str:
        tokens = torch.tensor([tokenizer.encode(prompt)])
        logits = subject.logits(tokens, torch.tensor([tokens.shape[1]]))[0]
        return f" {WORDS[int(logits[ids].argmax())]}"

    def pairs(first: str) -> tuple[PromptPair, ...]:
        found = []
        for x, y in [(x, y) for x in WORDS for y in WORDS if x < y]:
            clean, corrupted = f"{first} {x} c", f"{first} {y} c"
            right, wrong = says(clean), says(corrupted)
            if right != wrong:
                found.append(PromptPair(clean, corrupted, (right,), (wrong,), "f", {}))
        return tuple(found[:24])

    splits = {split: pairs(first) for split, first in zip(SPLITS, "abd")}
    dataset = TaskDataset("letters", "logit_diff", "other", 0, tokenizer.digest, splits)
    write_dataset(root / "letters", dataset)
    ref = CheckpointRef("ladder", "small-s0", "small", 0, 8, 64, "data/step8", weights_digest(folder))
    chosen = {
        "checkpoints": ("small-s0@last",),
        "target": 0.5,
        "space": SPACE,
        "truth": TruthParams(examples=10, top=0.2),
        "resampling": TuneResamplingParams(resamples=20),
    }
    return Place(
        name="small-s0@8",
        ref=ref,
        source=StudyFolders(root),
        task="letters",
        dataset=root / "letters",
        digest=dataset.digest,
        analyse=AnalyseParams(behaviour=BehaviourParams(resamples=100)),
        tune=TuneParams.model_validate(chosen | tune),
        cache=root / "jobs",
        device="cpu",
    )


def told(share: float, note: str = "") -> None:
    """A report that nobody reads."""
    assert 0 <= share <= 1
    assert isinstance(note, str)


def run_here(jobs: Sequence[Job]) -> None:
    """Do jobs in this process."""
    for job in jobs:
        job.function(*job.arguments, report=told)


def evaluation(edges: float, tune: float, *, steps: int = 5, prompts: int = 70, status: str = "reached") -> Evaluation:
    """An evaluation with these numbers; NaN edges: there is no circuit."""
    if math.isnan(edges):
        return Evaluation("trivial", "The empty circuit would pass.", prompts, forward=steps + 1, backward=steps)
    return Evaluation(
        status=status,  # type: ignore[arg-type]
        reason="" if status == "reached" else "No circuit meets the threshold.",
        prompts=prompts,
        asked=round(100 * edges),
        kept=round(100 * edges),
        nodes=7,
        edges=edges,
        edges_low=0.9 * edges,
        edges_high=1.1 * edges,
        discover=tune + 0.01,
        tune=Estimate(tune, tune - 0.05, tune + 0.05),
        held_out=Estimate(tune - 0.02, tune - 0.08, tune + 0.04),
        forward=steps + 1,
        backward=steps,
        circuits=9,
        seconds=0.25,
    )


def trial(
    steps: int, threshold: float, numbers: Mapping[str, tuple[float, float]], examples: float = 1.0, **more: Any
) -> Trial:
    """A trial of `eap_ig`; `numbers` are edges and faithfulness on `tune` by checkpoint."""
    chosen = setting("eap_ig", "right", steps, "greedy", threshold, examples)
    prompts = round(70 * examples)
    found = {n: evaluation(e, f, steps=steps, prompts=prompts, **more) for n, (e, f) in numbers.items()}
    return Trial(chosen, baseline_name(chosen), found)


def record() -> TuningRecord:
    """A small study with something to see in every picture."""
    trials = tuple(
        trial(
            m, tau, {
                "small-s0@8": (0.05 + 0.3 * (tau - 0.6) + 0.05 / m, tau + 0.01),
                "large-s0@8": (0.03 + 0.2 * (tau - 0.6) + 0.05 / m, tau + 0.03 - 0.1 / m),
            },
        )
        for m in (2, 5, 30)
        for tau in (0.7, 0.8, 0.9)
    )  # fmt: skip
    names = ("small-s0@8", "large-s0@8")
    quality = tuple(
        StepQuality(
            name, ScoreSetting("eap_ig", "right", m), m + 1, m, Estimate(0.9 - 0.4 / m, 0.8 - 0.4 / m, 0.95),
            Estimate(0.8, 0.7, 0.9), Estimate(0.4 / m, 0.1 / m, 0.7 / m), Quantiles(0.7, 0.8, 0.9),
        )
        for name in names
        for m in (2, 5, 30)
    )  # fmt: skip
    best = trials[4]
    return TuningRecord(
        name="ioi",
        task="ioi",
        mode="grid",
        dataset="d" * 32,
        target=0.8,
        form="raw",
        confidence=0.95,
        checkpoints=tuple(TunedCheckpoint(n, n[:-2], n[:5], 8, 64, f"weights {n}", 100, "learned", "") for n in names),
        trials=trials,
        quality=quality,
        enough=tuple(
            EnoughSteps(n, "eap_ig", "right", 5, 30, Estimate(0.08, 0.02, 0.14)) for n in names
        ),
        carried=tuple(
            Carried(a, b, best.setting, Estimate(0.1, 0.09, 0.11), 0.09, Estimate(0.82, 0.78, 0.86),
                    Estimate(0.8, 0.76, 0.84), a == b or a == names[0])
            for a in names for b in names
        ),
        front=(4, 7, 8),
        importances={"edges": {"threshold": 0.9, "steps": 0.1}, "passes": {"threshold": 0.0, "steps": 1.0}},
        recommended=Recommendation(best.setting, "It is the smallest.", 0.1, 770.0, 0.81, 0.79),
        adoptable=Recommendation(best.setting, "It is the smallest.", 0.1, 770.0, 0.81, 0.79),
    )  # fmt: skip
