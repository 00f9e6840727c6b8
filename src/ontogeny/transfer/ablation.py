"""What a role's heads are worth: ablated together, beside as many heads of the same layers (METHODS 0.1 C2).

Heads are taken out by interchange: their outputs become those of the corrupted prompt, and everything after them runs
on. The null are other sets with the same number of heads in each layer: all of them where there are no more than were
asked for, else distinct ones drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import torch

from ontogeny.core.circuit import Circuit
from ontogeny.core.faithfulness import percentile_95
from ontogeny.core.graph import GraphSpec
from ontogeny.core.roles import Head
from ontogeny.core.transfer import HeadAblation
from ontogeny.patching import CircuitEvaluator

LEAST_SETS = 19
"""With fewer other sets the role's heads may stand first of all and still be within 95 % of what chance gives."""


class MatchedSets(NamedTuple):
    """Sets of heads with as many in each layer as a given one, without that one."""

    sets: tuple[tuple[Head, ...], ...]
    possible: int
    """How many there are."""


def without_heads(graph: GraphSpec, heads: Sequence[Head]) -> Circuit:
    """All edges but those out of `heads`: what these write is what they write on the corrupted prompt."""
    edges = graph.real_edges.clone()
    edges[[graph.head_writer(*head) for head in heads]] = False
    return Circuit(graph, edges)


def matched_sets(graph: GraphSpec, heads: Sequence[Head], count: int, generator: torch.Generator) -> MatchedSets:
    """Other sets with as many heads in each layer: all that there are, or `count` distinct ones drawn at random."""
    own = tuple(sorted(heads))
    layers = {layer: sum(at == layer for at, _ in own) for layer in sorted({layer for layer, _ in own})}
    possible = math.prod(math.comb(graph.n_heads, k) for k in layers.values()) - 1
    if possible <= count:
        choices = [[[(n, h) for h in c] for c in combinations(range(graph.n_heads), k)] for n, k in layers.items()]
        every = [tuple(head for part in parts for head in part) for parts in product(*choices)]
        return MatchedSets(tuple(each for each in every if each != own), possible)
    found: dict[tuple[Head, ...], None] = {}
    while len(found) < count:
        drawn = [
            (layer, head)
            for layer, k in layers.items()
            for head in sorted(torch.randperm(graph.n_heads, generator=generator)[:k].tolist())
        ]
        if tuple(drawn) != own:
            found[tuple(drawn)] = None
    return MatchedSets(tuple(found), possible)


def ablate_roles(
    evaluator: CircuitEvaluator,
    task: str,
    step: int,
    holders: Mapping[str, Sequence[Head]],
    count: int,
    seed: int,
) -> tuple[HeadAblation, ...]:
    """`ablate_role` of each role; a set that several roles need is ablated once."""
    costs: dict[tuple[Head, ...], float] = {}
    return tuple(ablate_role(evaluator, task, step, role, heads, count, seed, costs) for role, heads in holders.items())


def ablate_role(
    evaluator: CircuitEvaluator,
    task: str,
    step: int,
    role: str,
    heads: Sequence[Head],
    count: int,
    seed: int,
    costs: dict[tuple[Head, ...], float] | None = None,
) -> HeadAblation:
    """Ablate the heads of a role, and `count` sets that match it.

    Args:
        evaluator: the model on the task's held-out prompts.
        task: its name, for the result ...
        step: ... and the checkpoint's.
        role: name of the role.
        heads: that hold it, strongest first.
        count: other sets, at most.
        seed: of their draw.
        costs: falls of the metric that are known already, by sorted heads; those found here are added.
    """
    nan = math.nan
    if not heads:
        reason = "No head holds the role."
        return HeadAblation(task, role, step, "undefined", reason, (), nan, nan, 0, 0, nan, nan, nan)
    known = {} if costs is None else costs
    others = matched_sets(evaluator.graph, heads, count, torch.Generator().manual_seed(seed))
    clean, corrupted = (float(x.double().mean()) for x in (evaluator.clean, evaluator.corrupted))
    for each in sorted({tuple(sorted(heads)), *others.sets} - set(known)):
        known[each] = clean - float(evaluator.evaluate(without_heads(evaluator.graph, each)).double().mean())
    own, falls = known[tuple(sorted(heads))], [known[each] for each in others.sets]
    span, enough = clean - corrupted, others.possible >= LEAST_SETS
    return HeadAblation(
        task=task,
        role=role,
        step=step,
        status="measured" if enough else "too few sets",
        reason="" if enough else f"There are {others.possible} other sets; {LEAST_SETS} are needed to stand out.",
        heads=tuple(heads),
        cost=own,
        cost_share=own / span if span else nan,
        sets=len(falls),
        possible=others.possible,
        sets_mean=sum(falls) / len(falls) if falls else nan,
        sets_p95=percentile_95(falls),
        beaten=sum(fall < own for fall in falls) / len(falls) if falls else nan,
    )
