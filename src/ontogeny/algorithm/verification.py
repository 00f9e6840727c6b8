"""Checks of a task's circuit (the paper's Appendices A and B; METHODS 7.8).

Every task: how much of the attribution, and of the circuit, leaves MLPs, beside the share that the graph itself has;
the roles of the circuit's heads, and how much of it has none that is known. Greater-than: whether heads look at the
start year YY and write the years just after it, and whether MLPs raise the years that come later.

What heads and MLPs write is read through the final norm at the scale of the clean run (its shift and the unembedding's
bias left out), over the hundred two-digit years only. As everywhere, the constant b_V W_O belongs to no head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.algorithm.metrics import heads_of
from ontogeny.components import holders
from ontogeny.core.algorithm import Verification
from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.pairs import PairBatch, PromptPair, TaskDataset, Tokenizer, single_token
from ontogeny.core.roles import Head, RoleScores, head_names
from ontogeny.models.forward import Run, embed, run
from ontogeny.models.functional import normalise
from ontogeny.models.subject import AlignedPairs, Subject, align_pairs
from ontogeny.params import ThresholdParams
from ontogeny.tasks import words

GREATER_THAN = "greater_than"
MOSTLY = 0.5
"""A head does something if it does it on more than this share of the prompts."""


def verify(
    subject: Subject,
    task: str,
    dataset: TaskDataset,
    batch: PairBatch,
    circuit: Circuit,
    scores: EdgeScores | None,
    roles: Mapping[str, RoleScores],
    thresholds: ThresholdParams,
) -> Verification:
    """The checks of one task's circuit.

    Args:
        subject: the model.
        task: its name.
        dataset: its strings.
        batch: the `discover` split of `dataset`, in its order.
        circuit: what is checked.
        scores: of all edges; None: what goes by them is NaN.
        roles: scores of every role, by name.
        thresholds: who holds a role.
    """
    held = roles_of_heads(circuit, roles, thresholds)
    numbers = mlp_dominance(circuit, scores) | without_role(circuit, scores, held)
    named = {head_names([head])[0]: names for head, names in held.items()}
    if task != GREATER_THAN:
        return Verification(numbers, {}, {}, named)
    found = year_checks(subject, dataset, batch)
    inside = heads_of(circuit)
    for name, shares in found.by_head.items():
        numbers[f"heads_that_{name}"] = _mean(shares[inside] > MOSTLY) if bool(shares.isfinite().any()) else math.nan
    return Verification(numbers, found.by_head, {"valid_minus_invalid": found.mlps}, named)


def mlp_dominance(circuit: Circuit, scores: EdgeScores | None) -> dict[str, float]:
    """Shares on edges that leave MLPs: of |score|, of the kept edges, and of all edges of the graph (what either would
    be if MLPs were nothing special).
    """
    graph = circuit.graph
    from_mlps = torch.zeros_like(graph.real_edges)
    from_mlps[[graph.mlp_writer(layer) for layer in range(graph.n_layers)]] = True
    weight = torch.full_like(graph.real_edges, torch.nan, dtype=torch.float64)
    if scores is not None:
        weight = scores.values.double().abs() * graph.real_edges
    return {
        "mlp_share_of_score": _share(weight, from_mlps),
        "mlp_share_of_circuit": _share(circuit.edges.double(), from_mlps),
        "mlp_share_of_graph": _share(graph.real_edges.double(), from_mlps),
    }


def roles_of_heads(
    circuit: Circuit, roles: Mapping[str, RoleScores], thresholds: ThresholdParams
) -> dict[Head, tuple[str, ...]]:
    """The roles that each head of the circuit holds, in the registry's order."""
    heads = [(layer, head) for layer, head in heads_of(circuit).nonzero().tolist()]
    holding = {name: set(holders(s, thresholds)) for name, s in roles.items() if s.status == "measured"}
    return {head: tuple(name for name, who in holding.items() if head in who) for head in heads}


def without_role(circuit: Circuit, scores: EdgeScores | None, held: Mapping[Head, tuple[str, ...]]) -> dict[str, float]:
    """Shares of the circuit's heads, and of |score| on its edges that leave heads, that no known role accounts for."""
    graph = circuit.graph
    rows = torch.zeros(2, graph.n_writers, dtype=torch.bool)
    for head, names in held.items():
        rows[int(bool(names)), graph.head_writer(*head)] = True
    unknown, known = rows
    weight = torch.full_like(graph.real_edges, torch.nan, dtype=torch.float64)
    if scores is not None:
        weight = scores.values.double().abs() * circuit.edges * (unknown | known)[:, None]
    return {
        "unknown_role_share_of_heads": float(unknown.sum()) / len(held) if held else math.nan,
        "unknown_role_share_of_score": _share(weight, unknown[:, None].expand_as(weight)),
    }


@dataclass(frozen=True)
class YearChecks:
    """What heads and MLPs do with years at the last token."""

    by_head: Mapping[str, Float[Tensor, "layers heads"]]
    """`attend_to_yy`: share of prompts in which the head looks most at YY; `peak_after_yy`: in which, of all years,
    what it writes raises YY or YY + 1 most."""
    mlps: Float[Tensor, " layers"]
    """Mean logit of the valid years (after YY) minus that of the others in what the MLP writes, a mean over prompts."""


def year_checks(subject: Subject, dataset: TaskDataset, batch: PairBatch) -> YearChecks:
    """Greater-than, on the clean prompts."""
    assert subject.tokenizer is not None, "a data set was tokenised with it"
    pairs = dataset.splits["discover"]
    aligned = align_pairs(subject, batch)
    clean = run(subject.weights, embed(subject.weights, aligned.clean), aligned.plan)
    ids = torch.tensor([single_token(year, subject.tokenizer) for year in words.YEARS])
    start = torch.tensor([words.YEARS.index(pair.slots["YY"]) for pair in pairs])
    years = torch.arange(len(words.YEARS))
    peaks, mlps = _lens(subject, clean, ids, (years == start[:, None]) | (years == start[:, None] + 1), start)
    looks = _looks_at(subject, clean, aligned, year_positions(pairs, subject.tokenizer))
    return YearChecks({"attend_to_yy": looks, "peak_after_yy": peaks}, mlps)


def year_positions(pairs: tuple[PromptPair, ...], tokenizer: Tokenizer) -> Int[Tensor, " pairs"] | None:
    """Where YY stands in each clean prompt, found in its string; None if it is no token of its own somewhere."""
    places = []
    for pair in pairs:
        year = pair.slots["XX"] + pair.slots["YY"]
        ids = tokenizer.encode(pair.clean)
        before = tokenizer.encode(pair.clean[: pair.clean.index(year) + len(year)])
        if ids[: len(before)] != before or tokenizer.decode(before[-1:]) != pair.slots["YY"]:
            return None
        places.append(len(before) - 1)
    return torch.tensor(places)


def _looks_at(
    subject: Subject, clean: Run, aligned: AlignedPairs, places: Int[Tensor, " pairs"] | None
) -> Float[Tensor, "layers heads"]:
    """Share of prompts in which each head looks most at these places from the last token."""
    if places is None:
        return torch.full((subject.graph.n_layers, subject.graph.n_heads), torch.nan)
    columns = places.to(subject.device) + aligned.plan.layout.padding
    most = torch.stack([block.pattern[:, :, -1].argmax(dim=-1) for block in clean.blocks])
    return (most == columns[:, None]).float().mean(dim=1).cpu()


def _lens(
    subject: Subject,
    clean: Run,
    ids: Int[Tensor, " years"],
    near: Bool[Tensor, "pairs years"],
    start: Int[Tensor, " pairs"],
) -> tuple[Float[Tensor, "layers heads"], Float[Tensor, " layers"]]:
    """Share of prompts whose peak is `near`, by head; mean logit of years after `start` minus the others, by MLP."""
    a, weights = subject.architecture, subject.weights
    unembed = weights.unembed[:, ids.to(subject.device)]
    scale = normalise(a, clean.final)[2]
    later = (torch.arange(len(ids)) > start[:, None]).to(unembed)
    contrast = later / later.sum(1, keepdim=True) - (1 - later) / (1 - later).sum(1, keepdim=True)
    near, peaks, mlps = near.to(subject.device), [], []
    for block, seen in zip(weights.blocks, clean.blocks):
        project = block.out.view(a.n_heads, a.d_head, a.d_model) @ unembed
        top = torch.einsum("nhd,hdy->nhy", seen.heads[:, -1] - block.value_bias, project).argmax(dim=-1)
        peaks.append(near.gather(1, top).float().mean(dim=0))
        mlps.append(((seen.mlp.out[:, -1] * scale @ unembed) * contrast).sum(dim=1).mean())
    return torch.stack(peaks).cpu(), torch.stack(mlps).cpu()


def _share(weight: Float[Tensor, "writers readers"], part: Bool[Tensor, "writers readers"]) -> float:
    total = float(weight.sum())
    return float(weight[part].sum()) / total if total > 0 else math.nan


def _mean(mask: Bool[Tensor, " heads"]) -> float:
    return float(mask.double().mean()) if len(mask) else math.nan
