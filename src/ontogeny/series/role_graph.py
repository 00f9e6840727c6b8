"""A circuit as roles: which share of |score| runs from role to role (METHODS 8.2).

Heads of different models cannot be compared by their indices, and those of different scales not even matched; what can
is how much of a circuit runs from heads of one role to heads of another. Nodes are put into groups: `input`, each head
role, `other heads` (that hold none), `mlps`, `logits`. A head of several roles counts in equal parts for each.

    share(a -> b) = sum over edges u -> v of |score| P[u, a] P[v, b] / sum of |score|
    likeness      = sum over a, b of min(share, share')        1: the same; 1 - total variation
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CheckpointAnalysis
from ontogeny.core.roles import Head
from ontogeny.records import MemberRecord

INPUT, OTHER, MLPS, LOGITS = "input", "other heads", "mlps", "logits"
_WHO: Final = ("suite", "member", "scale", "seed", "parameters", "task", "step", "tokens")
GRAPH_COLUMNS: Final = (*_WHO, "source", "target", "share", "share_all")
LIKENESS_COLUMNS: Final = (
    "task", "member", "other", "scale", "other_scale", "likeness", "shuffled", "shuffled_p95", "groups",
)  # fmt: skip
Holders = Mapping[str, Sequence[Head]]


def role_graph_table(records: Sequence[MemberRecord]) -> pd.DataFrame:
    """One row a member, task and pair of groups between which something runs, at the last checkpoint with a circuit.

    `share` is over the edges of the circuit, `share_all` over all edges. Members whose roles were not measured, or
    that have no circuit, have no row.
    """
    rows: list[tuple[object, ...]] = []
    for record in records:
        for task, analysis in last_circuits(record).items():
            groups, inside, every = _graphs(analysis, task, analysis.holders)
            ref = analysis.ref
            who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, task, ref.step, ref.tokens)
            for i, j in np.argwhere((inside > 0) | (every > 0)):
                rows.append((*who, groups[i], groups[j], float(inside[i, j]), float(every[i, j])))
    frame = pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))
    kinds = dict.fromkeys(("seed", "parameters", "step", "tokens"), "Int64")
    kinds |= dict.fromkeys(("suite", "member", "scale", "task", "source", "target"), "str")
    return frame.astype(kinds | {"share": "float64", "share_all": "float64"})


def role_graph_likeness(records: Sequence[MemberRecord], draws: int, seed: int) -> pd.DataFrame:
    """One row a task and pair of members: how alike their circuits are as roles (`share`), beside a null.

    The null gives the roles of the first member to other heads of the same layers, `draws` times: mean and 95th
    percentile of the likeness. Without a role that is held in both, `groups` is 0: then only heads, MLPs, input and
    logits are told apart.
    """
    last = [(record.member, task, a) for record in records for task, a in last_circuits(record).items()]
    rows: list[tuple[object, ...]] = []
    for (member, task, one), (other, of, two) in combinations(last, 2):
        if task != of:
            continue
        roles = tuple(dict.fromkeys([*one.holders, *two.holders]))
        theirs = _graphs(two, task, two.holders, roles)[1]
        rng = np.random.default_rng([seed, zlib.crc32(f"{task}/{member}/{other}".encode())])
        alike = float(np.minimum(_graphs(one, task, one.holders, roles)[1], theirs).sum())
        null = [
            float(np.minimum(_graphs(one, task, _shuffled(one, rng), roles)[1], theirs).sum()) for _ in range(draws)
        ]
        both = sum(bool(one.holders.get(role)) and bool(two.holders.get(role)) for role in roles)
        numbers = (alike, float(np.mean(null)), float(np.quantile(null, 0.95)), both)
        rows.append((task, member, other, one.ref.scale, two.ref.scale, *numbers))
    frame = pd.DataFrame(rows, columns=list(LIKENESS_COLUMNS))
    words = dict.fromkeys(("task", "member", "other", "scale", "other_scale"), "str")
    return frame.astype(
        words | dict.fromkeys(("likeness", "shuffled", "shuffled_p95"), "float64") | {"groups": "Int64"}
    )


def membership(graph: GraphSpec, holders: Holders, roles: Sequence[str]) -> Float[np.ndarray, "nodes groups"]:
    """P: the share of each node (the writers in their order, then the logits) in each group; rows sum to 1.

    Groups: input, `roles`, other heads, MLPs, logits.
    """
    part = np.zeros((graph.n_writers + 1, len(roles) + 4))
    part[0, 0] = part[-1, -1] = 1.0
    for layer in range(graph.n_layers):
        part[graph.mlp_writer(layer), -2] = 1.0
        for head in range(graph.n_heads):
            held = [i for i, role in enumerate(roles) if (layer, head) in holders.get(role, ())]
            for place in held or [len(roles)]:
                part[graph.head_writer(layer, head), 1 + place] = 1.0 / max(1, len(held))
    return part


def _graphs(
    analysis: CheckpointAnalysis, task: str, holders: Holders, roles: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Float[np.ndarray, "groups groups"], Float[np.ndarray, "groups groups"]]:
    """Names of the groups, and shares from group to group: of the circuit's edges, and of all."""
    roles = tuple(analysis.holders) if roles is None else tuple(roles)
    result, graph = analysis.tasks[task], analysis.model.graph
    assert result.scores is not None
    assert result.circuit.circuit is not None
    strength = result.scores.values.double().abs().numpy()
    part = membership(graph, holders, roles)
    node = graph.writer_of_reader.numpy() % (graph.n_writers + 1)  # -1, the logits, is the last node
    inside = strength * result.circuit.circuit.edges.numpy()
    shares = [part[:-1].T @ weight @ part[node] / weight.sum() for weight in (inside, strength)]
    return (INPUT, *roles, OTHER, MLPS, LOGITS), shares[0], shares[1]


def _shuffled(analysis: CheckpointAnalysis, rng: np.random.Generator) -> dict[str, list[Head]]:
    """Every head's roles given to another head of its layer."""
    graph = analysis.model.graph
    to = [rng.permutation(graph.n_heads) for _ in range(graph.n_layers)]
    return {role: [(layer, int(to[layer][head])) for layer, head in heads] for role, heads in analysis.holders.items()}


def last_circuits(record: MemberRecord) -> dict[str, CheckpointAnalysis]:
    """Task (in alphabetical order) -> the last checkpoint that found a circuit and knows its roles."""
    return dict(sorted(dict(_in_order(record)).items()))


def _in_order(record: MemberRecord) -> Iterator[tuple[str, CheckpointAnalysis]]:
    for analysis in sorted(record.analyses, key=lambda a: a.ref.step):
        for task, result in analysis.tasks.items():
            known = bool(analysis.roles) and result.scores is not None and analysis.model.graph.kv_heads is None
            if known and result.circuit.status == "found":
                yield task, analysis
