"""The IOI algorithm of a model set by hand, and of models and roles for which parts of it cannot be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from ontogeny.algorithm import analyse_algorithm
from ontogeny.components import ROLES, Material
from ontogeny.components.base import undefined
from ontogeny.core.algorithm import AlgorithmResult
from ontogeny.core.circuit import full_circuit
from ontogeny.core.pairs import PairBatch, tokenize
from ontogeny.core.roles import RoleScores
from ontogeny.params import AnalyseParams, AttentionParams, RolesParams
from ontogeny.patching.path_patching import PathPatcher
from ontogeny.records import pack, unpack
from support import hand_set

ROLE_PARAMS = RolesParams(attention=AttentionParams(sequences=4))
SETTINGS = AnalyseParams(roles=ROLE_PARAMS)
QUERIES, VALUES = ("queries", "queries_by_token"), ("values", "values_by_token")
DUPLICATE, INHIBITOR, MOVER = (0, 0), (1, 1), (2, 2)


@lru_cache
def roles() -> Mapping[str, RoleScores]:
    """All of them, but that nobody suppresses is not measured: it takes longest."""
    nobody = torch.zeros(3, 4, dtype=torch.float64)
    found = {"copy_suppression": RoleScores("copy_suppression", "measured", "", nobody, nobody, {}, {})}
    for role in ROLES.values():
        if role.name in found:
            continue
        material = Material(hand_set.ioi(), hand_set.held_out_text(), found)
        found[role.name] = role.score(hand_set.s_inhibition_path().subject, material, ROLE_PARAMS)
    return found


def pairs() -> PairBatch:
    return tokenize(hand_set.ioi().splits["discover"][:8], "logit_diff", hand_set.tokenizer())


def analyse(known: Mapping[str, RoleScores], batch: PairBatch | None = None) -> AlgorithmResult:
    subject = hand_set.s_inhibition_path().subject
    return analyse_algorithm(subject, batch or pairs(), known, full_circuit(subject.graph), SETTINGS)


def test_the_planted_algorithm_is_found_whole():
    found = analyse(roles())
    assert found.status == "measured"
    for name, heads, receivers in (
        ("direct", (MOVER,), ()),
        ("queries", (INHIBITOR,), (MOVER,)),
        ("values", (DUPLICATE,), (INHIBITOR,)),
        ("queries_by_token", (INHIBITOR,), (MOVER,)),
        ("values_by_token", (DUPLICATE,), (INHIBITOR,)),
    ):
        metric = found.metrics[name]
        assert metric.status == "measured"
        assert metric.heads == heads
        assert metric.receivers == receivers
        assert metric.value == pytest.approx(100.0, abs=1e-6)
        assert metric.value_in_circuit == pytest.approx(100.0, abs=1e-6)
    # one head in four of its layer holds the role; for D nearly all are above the mean of one of two scores
    assert 20 < found.metrics["direct"].null_mean < 30
    assert 20 < found.metrics["queries"].null_mean < 30
    assert found.metrics["values"].null_mean > 90
    # each link of the chain carries the whole behaviour
    assert float(found.effects["direct"].effect[MOVER]) == pytest.approx(-1.0, abs=1e-6)
    assert float(found.effects["queries"].effect[INHIBITOR]) == pytest.approx(-1.0, abs=1e-6)
    assert float(found.effects["values"].effect[DUPLICATE]) < -0.5
    assert found.effects["queries"].receivers == ("a2.h2<q>",)
    assert found.effects["values"].receivers == ("a1.h1<v>",)


def test_what_heads_add_to_s_is_told_apart_from_what_they_add_to_io():
    """The planted mover writes the name that it looks at: IO, on the corrupted prompt S. So it adds less to S where S
    came twice; and what it adds to IO minus what it adds to S is its effect on the metric.
    """
    found, batch = analyse(roles()), pairs()
    assert found.on_s is not None
    swapped = analyse(roles(), replace(batch, answer_weights=-batch.answer_weights)).on_s  # S and IO exchanged
    assert swapped is not None
    patcher = PathPatcher(hand_set.s_inhibition_path().subject, batch)
    direct = patcher.direct_effects().double().mean(dim=1)[1:].view(3, -1)[:, :-1]
    torch.testing.assert_close(swapped - found.on_s, direct, atol=1e-9, rtol=0)
    assert float(found.on_s[MOVER]) < -0.1
    assert float(swapped[MOVER]) > 0.1


def test_the_result_survives_packing():
    found = analyse(roles())
    again = unpack(AlgorithmResult, *pack(found))
    assert again.metrics == found.metrics
    torch.testing.assert_close(again.effects["values"].effect, found.effects["values"].effect)
    assert [entry.role for entry in again.repair] == list(roles())


def test_taking_the_name_mover_out_takes_everything():
    repair = {entry.role: entry for entry in analyse(roles()).repair}
    mover = repair["name_mover"]
    clean = float(hand_set.s_inhibition_path().subject.logits(pairs().clean, pairs().lengths).abs().max())
    assert clean > 1
    assert mover.ablated == (MOVER,)
    assert mover.lost > 1
    # nothing else writes to the logits, so that nothing can take over
    assert mover.by_heads == pytest.approx(0.0, abs=1e-9)
    assert mover.by_mlps == pytest.approx(0.0, abs=1e-9)
    assert mover.total == pytest.approx(mover.lost - mover.by_norm)
    inhibitor = repair["s_inhibition"]
    assert inhibitor.lost == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(inhibitor.taken_over)
    assert inhibitor.total == pytest.approx(mover.total)
    assert float(inhibitor.change[MOVER]) == pytest.approx(-mover.lost)
    assert bool(inhibitor.change[INHIBITOR].isnan())
    assert repair["successor"].status == "undefined"


def without(role: str, why: str) -> dict[str, RoleScores]:
    subject = hand_set.s_inhibition_path().subject
    return {**roles(), role: undefined(role, subject, why)}


@pytest.mark.parametrize(
    ("role", "gone"),
    [
        ("copy_suppression", {"direct", *VALUES}),
        ("negative_name_mover", {"direct"}),
        ("name_mover", {"direct", *QUERIES, *VALUES}),
        ("s_inhibition", {*QUERIES, *VALUES}),
        ("induction", {*VALUES}),
    ],
)
def test_a_role_that_was_not_measured_is_named(role: str, gone: set[str]):
    found = analyse(without(role, "Because."))
    assert {name for name, metric in found.metrics.items() if metric.status == "undefined"} == gone
    for name in gone:
        assert f"{role} is undefined: Because." in found.metrics[name].reason
        assert math.isnan(found.metrics[name].value)
    absent = analyse({name: scores for name, scores in roles().items() if name != role})
    assert f"{role} was not measured" in absent.metrics[sorted(gone)[0]].reason


def test_no_receivers_is_undefined_not_zero():
    copying = roles()["name_mover"]
    found = analyse({**roles(), "name_mover": replace(copying, score=0 * copying.score)})
    assert found.metrics["direct"].value == 0.0
    for name in (*QUERIES, *VALUES):
        assert "no name movers" in found.metrics[name].reason
    inhibition = roles()["s_inhibition"]
    silent = {name: 0 * value for name, value in inhibition.details.items()}
    found = analyse({**roles(), "s_inhibition": replace(inhibition, details=silent)})
    for queries, values in zip(QUERIES, VALUES):
        assert found.metrics[queries].value == 0.0
        assert "no S-inhibition heads" in found.metrics[values].reason
    assert set(found.effects) == {"direct", "queries"}


def test_a_head_that_tells_the_token_alone_counts_by_the_token_alone():
    inhibition = roles()["s_inhibition"]
    token_alone = {
        name: 0 * value if name.startswith("position") else value for name, value in inhibition.details.items()
    }
    found = analyse({**roles(), "s_inhibition": replace(inhibition, details=token_alone)})
    assert found.metrics["queries"].heads == ()
    assert found.metrics["values"].status == "undefined"
    assert found.metrics["queries_by_token"].heads == (INHIBITOR,)
    assert found.metrics["values_by_token"].heads == (DUPLICATE,)


def test_without_a_difference_between_the_prompts_effects_have_no_scale():
    found = analyse(roles(), replace(pairs(), corrupted=pairs().clean))
    assert found.status == "undefined"
    assert "no scale" in found.reason
    assert found.metrics == {}
