"""Roles and the algorithm as series: on hand-made checkpoints whose answers can be read off, and on a made-up study."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CheckpointAnalysis, CheckpointRef, ModelFacts
from ontogeny.core.roles import Head, RoleScores
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import (
    circuit_heads,
    follow,
    handovers,
    leading_head,
    mechanism_measures,
    role_emergences,
    role_onsets,
    role_table,
    role_turnover,
)
from ontogeny.series.roles import settled
from support.synthetic_study import STEPS, TASKS, member, study

GRAPH = GraphSpec(2, 2)
NAN = math.nan
PARAMS = TrajectoryParams(sustain=2)


def scores(values: Sequence[float], role: str = "induction") -> RoleScores:
    """Of heads a0.h0, a0.h1, a1.h0, a1.h1."""
    score = torch.tensor(values).view(2, 2)
    measured = bool(score.isfinite().any())
    return RoleScores(role, "measured" if measured else "undefined", "", score, score / 10, {}, {})


def record(rows: Sequence[Sequence[float]], threshold: float = 0.3) -> MemberRecord:
    """A member whose heads have these scores; a head holds the role from `threshold` on."""
    analyses = []
    for step, values in enumerate(rows):
        ref = CheckpointRef("s", "x-s0", "x", 0, step, step * 100, f"x/step{step}", f"w{step}")
        found = scores(values)
        held = [head for head in ((0, 0), (0, 1), (1, 0), (1, 1)) if float(found.score[head]) >= threshold]
        holders: dict[str, tuple[Head, ...]] = {"induction": tuple(held)}
        analyses.append(CheckpointAnalysis(ref, ModelFacts(GRAPH, 8, 4, 99), {}, {"induction": found}, holders))
    return MemberRecord("s", "x-s0", tuple(analyses), {})


def test_the_leading_head_is_the_largest_of_those_that_are_measured() -> None:
    found = scores((0.1, NAN, 0.4, 0.3))
    assert leading_head(found) == (1, 0)
    assert leading_head(found, frozenset({(0, 0), (1, 1)})) == (1, 1)
    assert leading_head(found, frozenset({(0, 1)})) is None
    assert leading_head(found, frozenset()) is None
    assert leading_head(scores((NAN,) * 4)) is None
    assert leading_head(scores((0.0, 0.0, -1.0, 0.0))) == (0, 0)


def test_heads_of_a_circuit_are_those_that_an_edge_touches() -> None:
    edges = torch.zeros(GRAPH.n_writers, GRAPH.n_readers, dtype=torch.bool)
    for name in ("input->a0.h1<k>", "a0.h1->a1.h0<v>", "a1.h0->logits"):
        edges[GRAPH.edge_index(name)] = True
    assert circuit_heads(Circuit(GRAPH, edges)) == {(0, 1), (1, 0)}
    assert circuit_heads(None) == frozenset()


def test_numbers_of_a_role_and_why_they_are_missing() -> None:
    last = member("deep").analyses[-1]
    named = mechanism_measures(last, "ioi")
    role = last.roles["name_mover"]
    assert named["role/name_mover/best"].value == float(role.score.max())
    assert named["role/name_mover/chance"].value == 2.0
    assert named["role/name_mover/holders"].value == len(last.holders["name_mover"]) == 1
    inside = circuit_heads(last.tasks["ioi"].circuit.circuit)
    within = max(float(role.score[head]) for head in inside)
    assert named["role/name_mover/best_in_circuit"].value == pytest.approx(within)
    nano = member("nano").analyses[-1]
    assert nano.tasks["ioi"].circuit.status == "threshold_unmet"
    small = mechanism_measures(nano, "ioi")
    assert (small["role/s_inhibition/best"].status, small["role/s_inhibition/holders"].status) == ("undefined",) * 2
    assert math.isnan(small["role/s_inhibition/holders"].value), "not measured is not none"
    assert small["role/name_mover/holders"].value == 0
    assert small["role/induction/best_in_circuit"].status == "threshold_unmet"
    assert math.isnan(small["role/induction/best_in_circuit"].value)


def test_the_algorithm_is_that_of_ioi_and_undefined_is_no_number() -> None:
    deep, nano = (member(name).analyses[-1] for name in ("deep", "nano"))
    assert deep.algorithm is not None
    metric = deep.algorithm.metrics["direct"]
    named = mechanism_measures(deep, "ioi")
    assert named["algorithm/direct"].value == metric.value
    assert named["algorithm/direct_null_p95"].value == metric.null_p95
    assert named["self_repair/name_mover/taken_over"].value == deep.algorithm.repair[0].taken_over
    assert not [name for name in mechanism_measures(deep, "sva") if name.startswith(("algorithm/", "self_repair/"))]
    small = mechanism_measures(nano, "ioi")
    assert (small["algorithm/queries"].status, math.isnan(small["algorithm/queries"].value)) == ("undefined", True)
    early = mechanism_measures(member("deep").analyses[0], "ioi")
    assert {early[f"algorithm/{name}"].status for name in ("direct", "queries", "values")} == {"undefined"}


def test_stability_has_an_interval_and_a_share_of_the_circuit() -> None:
    result = member("deep").analyses[-1]
    named = mechanism_measures(result, "ioi")
    stability, circuit = result.tasks["ioi"].stability, result.tasks["ioi"].circuit
    assert stability is not None
    assert circuit.kept is not None
    assert named["stability/core_share"].value == stability.core / circuit.kept
    assert named["stability/jaccard"].low < named["stability/jaccard"].value < named["stability/jaccard"].high
    assert (named["stability/size"].value, named["stability/size"].high) == (circuit.asked, circuit.asked + 5)
    early = mechanism_measures(member("deep").analyses[0], "ioi")
    assert (early["stability/jaccard"].status, early["stability/core"].status) == ("not_measured",) * 2


def appears(rows: Sequence[Sequence[float]], threshold: float = 0.3):
    return role_onsets(role_emergences([record(rows, threshold)], PARAMS)).itertuples()


def test_a_role_appears_when_its_best_head_rises_if_a_head_ever_holds_it() -> None:
    rise = [[0.0] * 4] * 12 + [[0.0, 0.0, 0.2, 0.0], [0.0, 0.0, 0.5, 0.0]] + [[0.0, 0.0, 0.6, 0.1]] * 3
    (found,) = appears(rise)
    assert (found.role, found.status, found.step, found.tokens) == ("induction", "found", 12, 1200)
    (never,) = appears(rise, threshold=0.7)
    assert (never.status, pd.isna(never.step)) == ("never", True)
    assert never.reason == "no head reaches the role's threshold"
    (missing,) = appears([[NAN] * 4] * 5)
    assert (missing.status, missing.reason) == ("never", "no checkpoint has a value")


def test_every_role_of_a_study_has_an_onset_row() -> None:
    trajectory = follow(study(("nano", "deep")), PARAMS)
    found = trajectory.role_onsets.set_index(["member", "role"])
    assert len(found) == 2 * 8
    assert found.loc[("nano-s0", "s_inhibition"), "status"] == "never"
    best = trajectory.table.query("member == 'deep-s0' and task == 'sva' and quantity == 'role/induction/best'")
    at = found.loc[("deep-s0", "induction")]
    below = best[best["step"] < at["step"]]["value"]
    assert (below < at["threshold"]).all()
    assert best[best["step"] == at["step"]]["value"].item() >= at["threshold"]


def test_changes_that_do_not_last_are_no_changes() -> None:
    def of(text: str, sustain: int = 2) -> str:
        return "".join("x" if held else "." for held in settled(np.array([c == "x" for c in text]), sustain))

    assert of("..xx..") == "..xx.."
    assert of("..x.xx") == "....xx"
    assert of("xx.xx.x") == "xxxxxxx"
    assert of("...x") == "....", "one checkpoint at the end does not say that it lasts"
    assert of("...x", sustain=1) == "...x"


def test_a_lost_role_and_the_head_that_took_over() -> None:
    a, b, none = [0.9, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.8], [0.0] * 4
    table = handovers([record([a, a, a, b, b, b, b, none, none, none])], PARAMS)
    assert table["head"].tolist() == ["a0.h0", "a1.h1"]
    first, second = table.itertuples()
    assert (first.lost_step, first.successor, first.gained_step) == (3, "a1.h1", 3)
    assert first.score_before == pytest.approx(0.9)
    assert (first.score_after, first.score_final) == pytest.approx((0.1, 0.0))
    assert (second.lost_step, second.successor, pd.isna(second.gained_step)) == (7, "", True)
    assert first.expected == pytest.approx(5 / 9), "steps 1 to 5 of 1 to 9 are within two checkpoints of the gain"
    assert second.expected == 0, "a head is not its own successor"
    far = handovers([record([a, a, none, none, none, none, b, b, b])], PARAMS)
    assert far["successor"].tolist() == [""]


def test_turnover_is_a_share_of_those_now_and_of_those_before() -> None:
    both, one, none = [0.9, 0.9, 0.0, 0.0], [0.0, 0.9, 0.9, 0.9], [0.0] * 4
    made = record([both, one, none])
    tasks = dict.fromkeys(("ioi",), member("deep", steps=(8,)).analyses[0].tasks["ioi"])
    made = dataclasses.replace(made, analyses=tuple(dataclasses.replace(a, tasks=tasks) for a in made.analyses))
    table = role_turnover([made]).set_index(["step", "quantity"])
    assert table.loc[(1, "role/induction/entering"), "value"] == pytest.approx(2 / 3)
    assert table.loc[(1, "role/induction/leaving"), "value"] == 0.5
    assert table.loc[(2, "role/induction/leaving"), "value"] == 1.0
    # Two of four heads before, three now: of three drawn at random half are new, of two a quarter is not among three.
    assert table.loc[(1, "role/induction/entering_by_chance"), "value"] == 0.5
    assert table.loc[(1, "role/induction/leaving_by_chance"), "value"] == 0.25
    assert table.loc[(2, "role/induction/leaving_by_chance"), "value"] == 1.0
    assert math.isnan(table.loc[(2, "role/induction/entering_by_chance"), "value"])
    assert table.loc[(2, "role/induction/entering"), "status"] == "no holder"


def test_duplicates_of_earlier_weights_are_in_no_series_of_roles() -> None:
    made = member("deep")
    assert made.duplicates == {1: 0}
    assert 1 not in set(role_table([made])["step"])
    assert len(role_table([made])) == (len(STEPS) - 1) * 8 * 24
    assert set(role_turnover([made])["step"]) == set(STEPS) - {0, 1}
    assert set(role_turnover([made])["task"]) == set(TASKS)


def test_a_study_without_roles_or_checkpoints_has_empty_tables() -> None:
    bare = dataclasses.replace(member("deep", steps=(0, 8)), analyses=())
    trajectory = follow([bare], PARAMS)
    assert len(trajectory.role_onsets) == len(trajectory.handovers) == len(role_table([bare])) == 0
