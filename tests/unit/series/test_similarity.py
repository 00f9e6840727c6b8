"""Likeness of circuits against numbers worked out on paper."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest
import torch

from ontogeny.core.circuit import Circuit, EdgeScores, node_strengths
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CheckpointAnalysis, CircuitResult
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import ewma, similarity
from support.synthetic_study import member

GRAPH = GraphSpec(2, 1)
PARAMS = TrajectoryParams(matched_fractions=(0.5,), matched_floor=1)


def scores(**values: float) -> EdgeScores:
    """Edges by name with dots and arrows spelt out, e.g. ``input__m0=1.0``."""
    grid = torch.zeros(GRAPH.n_writers, GRAPH.n_readers)
    for name, value in values.items():
        writer, reader = name.split("__")
        readers = {n.replace(".", "").replace("<", "").replace(">", ""): i for i, n in enumerate(GRAPH.reader_names)}
        writers = {n.replace(".", ""): i for i, n in enumerate(GRAPH.writer_names)}
        grid[writers[writer], readers[reader]] = value
    return EdgeScores(GRAPH, grid, "by hand")


def record(*chosen: EdgeScores | None) -> MemberRecord:
    """A member whose circuit at step i holds the edges that `chosen[i]` scores; none: not learned."""
    plain = member("nano", steps=(0, 1, 8, 64)[: len(chosen)], tasks=("ioi",))
    return dataclasses.replace(plain, analyses=tuple(map(_with, plain.analyses, chosen)))


def _with(analysis: CheckpointAnalysis, values: EdgeScores | None) -> CheckpointAnalysis:
    task = analysis.tasks["ioi"]
    circuit = None if values is None else Circuit(GRAPH, values.values != 0)
    status = "not_learned" if values is None else "found"
    result: CircuitResult = dataclasses.replace(task.circuit, status=status, circuit=circuit)
    ref = dataclasses.replace(analysis.ref, weights_digest=f"weights {analysis.ref.step}")
    model = dataclasses.replace(analysis.model, graph=GRAPH)
    return CheckpointAnalysis(ref, model, {"ioi": dataclasses.replace(task, scores=values, circuit=result)})


def value(table: pd.DataFrame, quantity: str, step: int) -> float:
    (row,) = table[(table["quantity"] == quantity) & (table["step"] == step)].itertuples()
    return float(row.value)


A = scores(input__m0=3.0, m0__logits=-1.0)
B = scores(input__m0=1.0, m0__logits=1.0, input__logits=2.0)
C = scores(input__m1=1.0, m1__logits=1.0, input__logits=2.0)


def test_jaccard_of_edges_and_nodes_on_paper() -> None:
    table = similarity([record(A, B, C)], PARAMS)
    # A and B share 2 of 3 edges and all of input, m0, logits; B and C share 1 of 5 edges and 2 of 4 nodes.
    assert value(table, "similarity/edges/previous", 1) == pytest.approx(2 / 3)
    assert value(table, "similarity/nodes/previous", 1) == 1.0
    assert value(table, "similarity/edges/previous", 8) == pytest.approx(1 / 5)
    assert value(table, "similarity/nodes/previous", 8) == pytest.approx(2 / 4)
    # A and C share no edge, and the nodes input and logits.
    assert value(table, "similarity/edges/final", 0) == 0.0
    assert value(table, "similarity/nodes/final", 0) == pytest.approx(2 / 4)


def test_weighted_jaccard_uses_shares_of_absolute_scores() -> None:
    table = similarity([record(A, B)], PARAMS)
    # Shares A: 3/4, 1/4, 0; B: 1/4, 1/4, 1/2. Minima 1/2, maxima 3/4 + 1/4 + 1/2.
    assert value(table, "similarity/edges_weighted/previous", 1) == pytest.approx(0.5 / 1.5)
    # Nodes A: input 3, m0 4, logits 1 of 8; B: input 3, m0 2, logits 3 of 8. Minima 3+2+1, maxima 3+4+3.
    assert value(table, "similarity/nodes_weighted/previous", 1) == pytest.approx(6 / 10)


def test_node_strengths_count_each_edge_at_both_ends() -> None:
    strengths = node_strengths(B)
    assert strengths.tolist() == [3.0, 0.0, 2.0, 0.0, 0.0, 3.0]
    assert float(strengths.sum()) == 2 * float(B.values.abs().sum())


def test_a_checkpoint_without_a_circuit_gives_no_number_and_says_why() -> None:
    table = similarity([record(None, A, None, B)], PARAMS).set_index(["quantity", "step"])
    previous = table.loc["similarity/edges/previous"]
    assert previous["value"].isna().tolist() == [True, True, True]
    assert previous["status"].tolist() == [
        "no circuit at step 0: not_learned",
        "no circuit at step 8: not_learned",
        "no circuit at step 8: not_learned",
    ]
    assert table.loc[("similarity/edges/final", 1), "value"] == pytest.approx(2 / 3)


def test_checkpoints_with_the_weights_of_an_earlier_step_are_left_out() -> None:
    copied = record(A, A, B)
    first, second, third = copied.analyses
    same = dataclasses.replace(second, ref=dataclasses.replace(second.ref, weights_digest=first.ref.weights_digest))
    table = similarity([dataclasses.replace(copied, analyses=(first, same, third))], PARAMS)
    assert sorted(table["step"].unique()) == [0, 8]
    assert value(table, "similarity/edges/previous", 8) == pytest.approx(2 / 3)


def test_matched_circuits_have_the_same_size_whatever_was_found() -> None:
    real = member("deep", tasks=("ioi",))
    params = TrajectoryParams(matched_fractions=(0.02, 0.1), matched_floor=20)
    table = similarity([real], params)
    kinds = {q.split("/")[1] for q in table["quantity"]}
    assert {"edges_at_2pct", "edges_at_10pct", "nodes_at_10pct"} <= kinds
    found = table[table["quantity"] == "similarity/edges_at_10pct/previous"]
    assert found["value"].between(0, 1).sum() > 10


def test_ewma_by_hand() -> None:
    assert ewma([1.0, 0.0, 1.0], 0.5) == [1.0, 0.5, 0.75]
    assert ewma([0.4, 0.8], 0.25) == pytest.approx([0.4, 0.25 * 0.8 + 0.75 * 0.4])
    with_gap = ewma([1.0, math.nan, 0.0], 0.5)
    assert with_gap[0] == 1.0
    assert math.isnan(with_gap[1])
    assert with_gap[2] == 0.5


def test_smoothed_column_is_the_ewma_of_the_plain_one() -> None:
    table = similarity([record(A, B, C, C)], PARAMS)
    plain = [value(table, "similarity/edges/previous", step) for step in (1, 8, 64)]
    smooth = [value(table, "similarity/edges/previous_ewma", step) for step in (1, 8, 64)]
    assert plain == pytest.approx([2 / 3, 1 / 5, 1.0])
    assert smooth == pytest.approx([2 / 3, 0.5 * (2 / 3 + 1 / 5), 0.5 * (1 + 0.5 * (2 / 3 + 1 / 5))])
