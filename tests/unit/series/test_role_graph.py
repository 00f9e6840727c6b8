"""Circuits as roles: shares worked out on paper, and what no shuffle of heads' names may change."""

import dataclasses

import numpy as np
import pytest
import torch

from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CheckpointAnalysis
from ontogeny.core.roles import Head
from ontogeny.records import MemberRecord
from ontogeny.series import membership, role_graph_likeness, role_graph_table
from ontogeny.transfer import rename_heads
from support.synthetic_study import STEPS, member

GRAPH = GraphSpec(2, 2)
EDGES = {
    "input->a0.h0<v>": 1.0, "a0.h0->a1.h1<q>": -2.0, "a1.h1->logits": 3.0, "input->m0": 1.0, "m0->a1.h1<k>": 1.0,
    "a0.h1->logits": 2.0,
}  # fmt: skip
HOLDERS: dict[str, tuple[Head, ...]] = {"induction": ((1, 1),), "previous_token": ((0, 0),), "name_mover": ((1, 1),)}


def record(
    holders: dict[str, tuple[Head, ...]], edges: dict[str, float] = EDGES, name: str = "small-s0", extra: float = 0.0
) -> MemberRecord:
    """One checkpoint with this circuit; `extra` is scored on an edge outside it."""
    plain = member("small", STEPS[-1:], ("ioi",))
    (analysis,) = plain.analyses
    values = torch.zeros(GRAPH.n_writers, GRAPH.n_readers)
    for edge, score in edges.items():
        values[GRAPH.edge_index(edge)] = score
    circuit = Circuit(GRAPH, values != 0)
    values[GRAPH.edge_index("input->logits")] = extra
    task = analysis.tasks["ioi"]
    result = dataclasses.replace(task.circuit, status="found", circuit=circuit)
    changed = dataclasses.replace(task, scores=EdgeScores(GRAPH, values, "by hand"), circuit=result)
    model = dataclasses.replace(analysis.model, graph=GRAPH)
    ref = dataclasses.replace(analysis.ref, member=name)
    found = CheckpointAnalysis(ref, model, {"ioi": changed}, analysis.roles, holders)
    return MemberRecord("ladder", name, (found,), {})


def shares(found: MemberRecord, column: str = "share") -> dict[tuple[str, str], float]:
    table = role_graph_table([found])
    return dict(zip(zip(table["source"], table["target"]), table[column]))


def test_shares_on_paper() -> None:
    """|scores| sum to 10; a1.h1 counts half for induction and half for name mover."""
    found = shares(record(HOLDERS))
    expected = {
        ("input", "previous_token"): 0.1,
        ("previous_token", "induction"): 0.1,
        ("previous_token", "name_mover"): 0.1,
        ("induction", "logits"): 0.15,
        ("name_mover", "logits"): 0.15,
        ("input", "mlps"): 0.1,
        ("mlps", "induction"): 0.05,
        ("mlps", "name_mover"): 0.05,
        ("other heads", "logits"): 0.2,
    }
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_edges_outside_the_circuit_count_in_share_all_alone() -> None:
    found = record(HOLDERS, extra=10.0)
    assert shares(found)[("input", "logits")] == 0
    assert shares(found, "share_all")[("input", "logits")] == pytest.approx(0.5)
    assert shares(found, "share_all")[("input", "mlps")] == pytest.approx(0.05)


def test_every_node_is_in_groups_that_sum_to_one() -> None:
    part = membership(GRAPH, HOLDERS, tuple(HOLDERS))
    assert part.shape == (GRAPH.n_writers + 1, 3 + 4)
    assert part.sum(1) == pytest.approx(1)
    assert part[GRAPH.head_writer(1, 1)].tolist() == [0, 0.5, 0, 0.5, 0, 0, 0]


def test_renaming_heads_changes_nothing_if_their_roles_go_along() -> None:
    to = np.array([[1, 0], [1, 0]])
    values = {}
    for edge, score in EDGES.items():
        one = torch.zeros_like(GRAPH.real_edges)
        one[GRAPH.edge_index(edge)] = True
        (name,) = rename_heads(Circuit(GRAPH, one), to).edge_names
        values[name] = score
    roles = {role: tuple((layer, int(to[layer, head])) for layer, head in heads) for role, heads in HOLDERS.items()}
    renamed = record(roles, values, "large-s0")
    assert shares(renamed) == pytest.approx(shares(record(HOLDERS)))
    (row,) = role_graph_likeness([record(HOLDERS), renamed], 20, 0).to_dict("records")
    assert row["likeness"] == pytest.approx(1)
    assert row["groups"] == 3
    assert row["shuffled"] < 0.95, "a shuffle of two heads a layer is right in a quarter of the draws"
    kept = record(HOLDERS, values, "large-s0")
    (other,) = role_graph_likeness([record(HOLDERS), kept], 20, 0).to_dict("records")
    assert other["likeness"] < 0.9


def test_members_without_a_circuit_or_roles_have_no_row() -> None:
    early = member("small", (0,), ("ioi",))
    nameless = record(HOLDERS)
    (analysis,) = nameless.analyses
    nameless = dataclasses.replace(nameless, analyses=(dataclasses.replace(analysis, roles={}),))
    assert len(role_graph_table([early, nameless])) == 0
    assert len(role_graph_likeness([early, nameless], 5, 0)) == 0
    two = [record(HOLDERS), record(HOLDERS, name="small-s1"), record(HOLDERS, name="large-s0")]
    assert len(role_graph_likeness(two, 5, 0)) == 3
