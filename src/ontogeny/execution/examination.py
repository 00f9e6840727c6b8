"""What is asked of a member at its last checkpoint only: how it solves its tasks (METHODS 11.2-11.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ontogeny.core.behaviour import metric_values
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PairBatch, Tokenizer
from ontogeny.models.subject import Subject
from ontogeny.tasks.probes import ProbeResult, probe_result, probe_sets


@dataclass(frozen=True)
class Examination:
    """The last checkpoint of a member."""

    step: int
    probes: Mapping[str, ProbeResult]
    """By probe set; empty where the tokenizer has too few names."""
    blind: Mapping[str, float]
    """By task: the metric, on held-out prompts, of the model's own mean prediction over them. That is blind to the
    prompt: for greater-than, to YY (METHODS 11.3)."""


def examine(subject: Subject, step: int, held_out: Mapping[str, PairBatch], tokenizer: Tokenizer) -> Examination:
    """Examine a member; `held_out` holds the tasks' held-out split."""
    blind = {task: blind_score(subject, batch) for task, batch in held_out.items()}
    return Examination(step, examine_probes(subject, tokenizer), blind)


def examine_probes(subject: Subject, tokenizer: Tokenizer) -> dict[str, ProbeResult]:
    """The result of each probe set."""
    try:
        sets = probe_sets(tokenizer)
    except ImpossibleRequest:
        return {}
    results = {}
    for name, probes in sets.items():
        rows = [tokenizer.encode(probe.prompt) for probe in probes]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        logits = subject.logits(tokens, torch.tensor([len(row) for row in rows])).cpu()
        results[name] = probe_result(logits, probes, tokenizer)
    return results


def blind_score(subject: Subject, batch: PairBatch) -> float:
    """Mean metric of the mean prediction (probabilities averaged over the prompts)."""
    logits = subject.logits(batch.clean, batch.lengths).double().cpu()
    mean = logits.softmax(dim=-1).mean(dim=0, keepdim=True).log()
    return float(metric_values(mean.expand_as(logits), batch).mean())
