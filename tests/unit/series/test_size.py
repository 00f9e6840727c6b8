"""Circuit size against model size: the arithmetic by other routes, and what is left out is counted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from ontogeny.core.results import CheckpointAnalysis
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import emergences, headline, size_correlations, size_points, tidy
from ontogeny.series.size import POINT_COLUMNS, correlation
from support.synthetic_study import SCALES, member, study

PYTHIA = {"70m": 70_426_624, "160m": 162_322_944, "410m": 405_334_016, "1.4b": 1_414_647_808, "2.8b": 2_775_208_960}
"""Parameters of the five models that the paper analyses."""


def points_of(records: list[MemberRecord]) -> pd.DataFrame:
    table = tidy(records)
    models = {record.member: record.analyses[-1].model for record in records}
    return size_points(table, models, emergences(headline(table), TrajectoryParams()))


def test_pearson_and_its_interval_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=9)
    found = correlation(x, y, "pearson")
    reference = pearsonr(x, y)
    assert found.value == pytest.approx(reference.statistic)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert found.p == pytest.approx(reference.pvalue)


def test_at_five_points_a_correlation_below_0_878_is_not_significant() -> None:
    """METHODS 8.4. The points are built to have a given correlation with the logarithms of five real sizes."""
    x = np.log2(list(PYTHIA.values()))
    x = (x - x.mean()) / x.std()
    rng = np.random.default_rng(1)
    other = rng.normal(size=5)
    other -= other.mean() + x * (other @ x) / (x @ x)
    other /= other.std()

    def with_r(r: float) -> np.ndarray:
        return r * x + math.sqrt(1 - r * r) * other

    assert correlation(x, with_r(0.878), "pearson").value == pytest.approx(0.878)
    assert correlation(x, with_r(0.878), "pearson").p == pytest.approx(0.05, abs=5e-4)  # 0.878 is rounded
    assert correlation(x, with_r(0.87), "pearson").low < 0 < correlation(x, with_r(0.93), "pearson").low


def test_of_ranks_only_the_perfect_order_of_five_is_sure() -> None:
    x = np.arange(5.0)
    perfect = correlation(x, np.exp(x), "spearman")
    assert perfect.value == perfect.high == pytest.approx(1, abs=0.01)
    assert 0 < perfect.low < 0.5
    assert perfect.p == pytest.approx(2 / 120), "of 120 orders two are perfect"
    assert correlation(x, -np.exp(x), "spearman").high == pytest.approx(-perfect.low)
    swapped = correlation(x, np.array([0.0, 1.0, 2.0, 4.0, 3.0]), "spearman")
    assert swapped.value == pytest.approx(0.9)
    assert swapped.low < 0
    assert swapped.p == pytest.approx(10 / 120), "four other orders swap neighbours, and as many are so far below 0"
    assert math.isnan(correlation(x[:4], x[:4], "spearman").value), "even a perfect order of four has p = 1/12"
    assert math.isnan(correlation(x, np.ones(5), "pearson").value)


def test_intervals_of_ranks_hold_the_truth() -> None:
    """Bonett and Wright: of pairs with rank correlation 6/pi asin(r/2), about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    r, n, held = 0.5, 20, 0
    truth = 6 / math.pi * math.asin(r / 2)
    for _ in range(400):
        x, noise = rng.normal(size=(2, n))
        found = correlation(x, r * x + math.sqrt(1 - r * r) * noise, "spearman")
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98  # nominal 0.95, standard deviation of 400 draws 0.011


def test_a_point_is_the_mean_after_the_onset() -> None:
    records = list(study())
    points = points_of(records).set_index(["task", "scale"])
    deep = points.loc[("ioi", "deep")]
    table = tidy(records[3:]).query("task == 'ioi' and quantity == 'circuit/edges' and status == 'found'")
    (found,) = emergences(headline(tidy(records[3:])).query("task == 'ioi'"), TrajectoryParams())
    after = table[(table["tokens"] >= found.onset.tokens) & table["duplicate_of"].isna()]
    assert (deep["edges"], deep["checkpoints"]) == (pytest.approx(after["value"].mean()), len(after))
    assert deep["edges_variation"] == pytest.approx(after["value"].std() / after["value"].mean())
    assert (deep["graph_edges"], deep["parameters"]) == (SCALES["deep"].graph.n_edges, SCALES["deep"].parameters)
    assert points.loc[("sva", "nano"), "status"] == "no onset"
    nano = points.loc[("ioi", "nano")]
    assert (nano["status"], math.isnan(nano["edges"])) == ("no circuit was found", True)
    assert nano["censored"] > 0
    assert points.loc[("gendered_pronoun", "deep"), "other"] == 1, "the trivial one"


def capped(record: MemberRecord, share: float) -> MemberRecord:
    """As if the search had looked at this share of the edges."""

    def of(analysis: CheckpointAnalysis) -> CheckpointAnalysis:
        cap = int(share * analysis.model.graph.n_edges)
        tasks = {
            name: dataclasses.replace(t, circuit=dataclasses.replace(t.circuit, cap=cap))
            for name, t in analysis.tasks.items()
        }
        return dataclasses.replace(analysis, tasks=tasks)

    return dataclasses.replace(record, analyses=tuple(map(of, record.analyses)))


def test_sizes_of_a_capped_search_do_not_count() -> None:
    points = points_of([capped(member("deep"), 0.05)])
    assert set(points["status"]) == {"not searched in full"}
    assert (points["not_full"] > 0).all()
    assert points["edges"].isna().all()


def test_shapes_with_two_scales_are_one_point_and_what_is_left_out_is_counted() -> None:
    shapes = [(2, 2, 16), (4, 4, 32), (6, 4, 32), (6, 8, 32), (8, 8, 64), (8, 8, 64)]
    rows = [
        dict.fromkeys(POINT_COLUMNS, 0)
        | {"suite": "s", "task": "ioi", "scale": f"x{i}", "layers": a, "heads": h, "d_model": d, "status": "measured"}
        | {"parameters": 10.0**i, "graph_edges": 100.0 * i + 1, "edges": 5.0 * i, "nodes": 40.0 - i}
        for i, (a, h, d) in enumerate(shapes)
    ]
    lost = rows[0] | {"scale": "lost", "status": "no onset", "edges": math.nan}
    found = size_correlations(pd.DataFrame([*rows, lost])).set_index(["what", "against", "kind"])
    assert set(found["points"]) == {5}
    assert set(found["left_out"]) == {1}
    assert found.loc[("edges", "log_parameters", "spearman"), "value"] == 1
    assert found.loc[("nodes", "parameters", "spearman"), "value"] == -1
    used = np.array([0, 1, 2, 3, 4.5]), np.array([1.0, 10, 100, 1000, (1e4 + 1e5) / 2])
    assert found.loc[("edges", "log_parameters", "pearson"), "value"] == pytest.approx(
        np.corrcoef(5 * used[0], np.log2(used[1]))[0, 1]
    )
