"""The table of stability: against the tidy table, closed forms, and random circuits drawn one by one."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import hypergeom

from ontogeny.core.circuit import (
    EdgeScores,
    grow,
    jaccard_edges,
    jaccard_nodes,
    matched_size,
    permute_scores,
    weighted_jaccard,
)
from ontogeny.core.graph import GraphSpec
from ontogeny.params import TrajectoryParams
from ontogeny.series import RandomCircuits, similarity, stability_table, tidy
from ontogeny.series.stability import STABILITY_COLUMNS, circuit_verdicts
from support.synthetic_study import STEPS, member

PARAMS = TrajectoryParams(matched_fractions=(0.05, 0.2), matched_floor=1, null_circuits=6)
RECORD = member("small", STEPS[8:], ("ioi", "sva"))
GRAPH = GraphSpec(3, 4)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.concat([tidy([RECORD]), similarity([RECORD], PARAMS)], ignore_index=True)


@pytest.fixture(scope="module")
def found(table: pd.DataFrame) -> pd.DataFrame:
    return stability_table([RECORD], table, PARAMS)


def scores(graph: GraphSpec = GRAPH) -> EdgeScores:
    values = torch.randn(graph.n_writers, graph.n_readers, generator=torch.Generator().manual_seed(3)) ** 3
    return EdgeScores(graph, values * graph.real_edges, "random")


def test_random_circuits_are_those_of_permuted_scores_pair_by_pair() -> None:
    drawn = RandomCircuits(scores(), 5, 7)
    generator = torch.Generator().manual_seed(7)
    shuffled = [permute_scores(scores(), generator) for _ in range(5)]
    small, large = ([grow(each, kept) for each in shuffled] for kept in (12, 30))
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    for kind, at in ((jaccard_edges, 0), (jaccard_nodes, 2)):
        values = [kind(small[i], large[j]) for i, j in pairs]
        got = drawn.alike(12, 30)
        assert got[at] == pytest.approx(np.mean(values))
        assert got[at + 1] == pytest.approx(np.quantile(values, 0.95))
    assert drawn.alike(12, 30) == pytest.approx(drawn.alike(30, 12))
    weighted = [weighted_jaccard(shuffled[i], shuffled[j]) for i, j in pairs]
    assert drawn.alike_weighted().edges == pytest.approx(np.mean(weighted))


def test_the_whole_graph_is_always_the_same_and_circuits_share_more_than_sets() -> None:
    drawn = RandomCircuits(scores(), 20, 0)
    assert drawn.alike(GRAPH.n_edges, GRAPH.n_edges) == (1.0, 1.0, 1.0, 1.0)
    shared = hypergeom(GRAPH.n_edges, 30, 30)
    of_sets = sum(shared.pmf(k) * k / (60 - k) for k in range(31))
    assert drawn.alike(30, 30).edges > of_sets > 0
    assert drawn.alike(30, 30) != RandomCircuits(scores(), 20, 1).alike(30, 30)


def test_every_likeness_of_the_tidy_table_has_its_place(table: pd.DataFrame, found: pd.DataFrame) -> None:
    assert tuple(found.columns) == STABILITY_COLUMNS
    assert set(found["size"]) == {"found", "5pct", "20pct", "weighted"}
    index = found.set_index(["task", "step", "size"])
    suffix = {"found": "", "5pct": "_at_5pct", "20pct": "_at_20pct", "weighted": "_weighted"}
    checked = 0
    for size, part in suffix.items():
        for what in ("edges", "nodes"):
            for to in ("previous", "previous_ewma", "final"):
                rows = table[table["quantity"] == f"similarity/{what}{part}/{to}"]
                for row in rows.itertuples():
                    shown = index.loc[(row.task, row.step, size), f"{what}_{to}"]
                    assert shown == row.value or (math.isnan(shown) and math.isnan(row.value))
                    checked += not math.isnan(row.value)
    assert checked > 200


def test_sizes_resamples_and_verdicts_are_of_found_circuits(table: pd.DataFrame, found: pd.DataFrame) -> None:
    wide = table[table["task"] == "ioi"].pivot(index="step", columns="quantity", values="value")
    ours = found[(found["size"] == "found") & (found["task"] == "ioi")].set_index("step")
    pd.testing.assert_series_equal(ours["edges"], wide["circuit/edges"], check_names=False, check_index_type=False)
    pd.testing.assert_series_equal(ours["nodes"], wide["circuit/nodes"], check_names=False, check_index_type=False)
    pd.testing.assert_series_equal(
        ours["resampled_edges"], wide["stability/jaccard"], check_names=False, check_index_type=False
    )
    compared = ours["edges_previous"].notna()
    assert (ours.loc[compared, "verdict"] != "").all()
    assert (ours.loc[~compared, "verdict"] == "").all()
    known = found["edges_previous"].notna() & found["resampled_edges_low"].notna()
    assert set(found.loc[known & (found["size"] == "5pct"), "verdict"]) <= {"changed", "as resamples"}
    assert (known & (found["size"] == "5pct")).any()
    assert set(found.loc[found["size"] == "20pct", "verdict"]) == {"", "undecided"}, "not resampled at that size"


def test_a_circuit_changed_if_it_is_less_like_its_predecessor_than_resamples_are_alike() -> None:
    """The least of both intervals counts; and a circuit of 10 edges can share at most half with one of 20."""
    rows = [
        (10.0, math.nan, 0.5, ""),
        (10.0, 0.7, 0.6, "as resamples"),
        (10.0, 0.55, 0.8, "changed"),
        (20.0, 0.45, 0.8, "as resamples"),
        (20.0, 0.45, 0.8, "changed"),
        (20.0, 0.9, math.nan, "as resamples"),
        (20.0, 0.9, math.nan, "undecided"),
    ]
    frame = pd.DataFrame(rows, columns=["edges", "edges_previous", "resampled_edges_low", "expected"])
    frame = frame.assign(member="m-s0", task="ioi", size="found")
    assert circuit_verdicts(frame).tolist() == frame["expected"].tolist()
    other = pd.concat([frame, frame.assign(member="n-s0")], ignore_index=True)
    assert circuit_verdicts(other).tolist() == 2 * frame["expected"].tolist(), (
        "members have nothing to do with each other"
    )


def test_resamples_stand_beside_the_sizes_that_they_were_grown_to(found: pd.DataFrame) -> None:
    """The record's 5 % is a size here too; its 1 % is none, and 20 % was not grown to."""
    measured = {
        (analysis.ref.step, each.size): each
        for analysis in RECORD.analyses
        if (stability := analysis.tasks["ioi"].stability) is not None
        for each in stability.likeness
        if each.size != "matched" or each.kept == matched_size(analysis.model.graph, 0.05, PARAMS.matched_floor)
    }
    rows = found[found["task"] == "ioi"]
    seen = set()
    for row in rows.itertuples():
        kind = {"5pct": "matched", "20pct": "none"}.get(row.size, row.size)
        alike = measured.get((row.step, kind))
        assert math.isnan(row.resampled_edges) == (alike is None)
        if alike is not None:
            assert (row.resampled_edges, row.resampled_nodes) == (alike.edges.median, alike.nodes.median)
            assert (row.resampled_nodes_low, row.resampled_nodes_high) == (alike.nodes.low, alike.nodes.high)
            seen.add(row.size)
    assert seen == {"found", "5pct", "weighted"}


def test_shares_that_come_down_to_the_same_floor_have_the_same_null() -> None:
    params = PARAMS.model_copy(update={"matched_fractions": (0.001, 0.002), "matched_floor": 20})
    table = pd.concat([tidy([RECORD]), similarity([RECORD], params)], ignore_index=True)
    found = stability_table([RECORD], table, params)
    both = [found[found["size"] == size]["resampled_edges"].to_numpy() for size in ("0_1pct", "0_2pct")]
    assert np.isfinite(both[0]).any()
    np.testing.assert_array_equal(both[0], both[1])


def test_the_random_null_is_of_the_sizes_that_are_compared(found: pd.DataFrame) -> None:
    last = RECORD.analyses[-1].tasks["ioi"].scores
    assert last is not None
    drawn = RandomCircuits(last, 6, PARAMS.seed)
    rows = found[(found["size"] == "found") & (found["task"] == "ioi")]
    before = rows["edges"].shift()
    for here, one, other in zip(rows.itertuples(), rows["edges"], before):
        if math.isnan(one) or math.isnan(other):
            assert math.isnan(here.random_edges)
        else:
            assert here.random_edges == pytest.approx(drawn.alike(int(one), int(other)).edges)
    matched = found[(found["size"] == "20pct") & (found["task"] == "ioi")]
    assert matched["edges"].nunique() == 1
    assert matched["random_edges"].dropna().nunique() == 1
    assert matched["random_edges"].iloc[-1] == pytest.approx(drawn.alike(*[int(matched["edges"].iloc[0])] * 2).edges)


def test_the_first_checkpoint_says_so_and_nothing_gives_nothing(found: pd.DataFrame) -> None:
    firsts = found[found["step"] == RECORD.analyses[0].ref.step]
    assert set(firsts["status"]) == {"the first checkpoint"}
    assert firsts["edges_previous"].isna().all()
    empty = stability_table([], tidy([]), PARAMS)
    assert tuple(empty.columns) == STABILITY_COLUMNS
    assert len(empty) == 0
