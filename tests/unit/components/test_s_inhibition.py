"""S-inhibition: a path set by hand, one prompt and one head at a time, and where it cannot be measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ontogeny.components import ROLES, Material, holders
from ontogeny.components.base import undefined
from ontogeny.components.copying import name_places
from ontogeny.components.s_inhibition import LEAST_FALL, name_movers_at_work, s_inhibition
from ontogeny.core.pairs import tokenize
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import RolesParams
from ontogeny.patching.path_patching import PathPatcher, all_heads, head_effects, head_readers
from ontogeny.tasks.ioi_counterfactuals import counterfactuals
from support import hand_set
from support.engine import neox_model, neox_subject
from support.naive_paths import naive_paths
from support.naive_roles import subject_of_kind

PARAMS = RolesParams()


def measure(subject: Subject, **material: object) -> RoleScores:
    given = Material(**({"ioi": hand_set.ioi()} | material))  # type: ignore[arg-type]
    copying = ROLES["name_mover"].score(subject, given, PARAMS)
    return ROLES["s_inhibition"].score(subject, replace(given, roles={"name_mover": copying}), PARAMS)


def test_the_planted_head_is_found_and_no_other():
    planted = hand_set.s_inhibition_path()
    found = measure(planted.subject)
    assert found.status == "measured"
    assert holders(found, PARAMS.thresholds) == (planted.heads["s_inhibition"],)
    at = planted.heads["s_inhibition"]
    # the name mover turns from IO to S1: from all to nothing, and the logit difference from IO's to S's
    for name, expected in {"position": 1.0, "token_position": 1.0, "position_io": -1.0, "position_s1": 1.0}.items():
        assert float(found.details[name][at]) == pytest.approx(expected, abs=0.01)
    assert float(found.details["token"][at]) > 0.5
    others = torch.ones(3, 4, dtype=torch.bool)
    others[at] = False
    assert float(found.score[:2][others[:2]].abs().max()) < 1e-12
    assert bool(found.score[2].isnan().all())
    assert float(found.chance[at]) < 1e-12
    assert found.facts["name_movers"] == 1


def test_falls_are_those_of_one_prompt_and_one_head_at_a_time():
    size = {"layers": 3, "heads": 4, "vocab": hand_set.T}
    model, subject = neox_model(**size), neox_subject(**size)
    data = hand_set.ioi(3)
    own = tokenize(data.splits["discover"], "logit_diff", hand_set.tokenizer())
    made = counterfactuals(data)
    sets = {name: tokenize(made[name], "logit_diff", hand_set.tokenizer()) for name in ("stranger", "position")}
    movers, places = ((1, 1), (2, 0)), name_places(data.splits["discover"], hand_set.tokenizer())
    assert not isinstance(places, str)
    patcher = PathPatcher(subject, sets["stranger"]).against(own.corrupted)
    found = s_inhibition(subject, patcher, sets, movers, places.places[:, :2])
    receivers = list(head_readers(subject.graph, 0, movers))
    unit = float(patcher.clean.mean() - patcher.corrupted.mean())
    for name, batch in sets.items():
        senders = list(all_heads(subject.graph)[:8])
        patched = naive_paths(model, batch, receivers, senders, freeze=False, at_end=True)
        falls = (patcher.clean.mean() - patched.mean(dim=1)) / unit
        torch.testing.assert_close(found[name][:2].flatten(), falls, atol=1e-10, rtol=0)
        assert falls.abs().max() > 1e-3
        assert bool(found[name][2].isnan().all())
    assert bool((found["position_io"][0] != 0).all())


def test_a_holder_needs_all_three_signs_and_a_fall_above_chance():
    one = torch.ones(1, 6, dtype=torch.float64)
    score = torch.tensor([[0.5, -0.5, 0.5, 0.5, 0.5, LEAST_FALL / 2]], dtype=torch.float64)
    io = torch.tensor([[-0.1, -0.1, 0.1, -0.1, -0.1, -0.1]], dtype=torch.float64)
    s1 = torch.tensor([[0.1, 0.1, 0.1, -0.1, 0.1, 0.1]], dtype=torch.float64)
    chance = one * torch.tensor([0.0, 0.0, 0.0, 0.0, 0.6, 0.0], dtype=torch.float64)
    scores = RoleScores(
        "s_inhibition", "measured", "", score, chance, {"position": score, "position_io": io, "position_s1": s1}, {}
    )
    assert holders(scores, PARAMS.thresholds) == ((0, 0),)


def test_name_movers_at_work_copy_and_help():
    score = torch.tensor([[90.0, 80.0, 5.0]], dtype=torch.float64)
    copying = RoleScores("name_mover", "measured", "", score, torch.zeros_like(score), {}, {})
    effects = torch.tensor([[0.1, -0.1, -0.5]])
    assert name_movers_at_work(effects, copying, PARAMS.thresholds) == ((0, 1),)


def test_what_cannot_be_measured_says_why():
    no_set = measure(hand_set.s_inhibition_path().subject, ioi=None)
    assert "no IOI data set" in no_set.reason
    no_movers = measure(hand_set.duplicate_token_model().subject)
    for scores, reason in ((no_set, "Without name movers"), (no_movers, "no unit")):
        assert scores.status == "undefined"
        assert reason in scores.reason
        assert bool(scores.score.isnan().all())
        assert holders(scores, PARAMS.thresholds) == ()
    subject = subject_of_kind("gpt_neox")
    given = Material(ioi=hand_set.ioi(), roles={"name_mover": replace(
        undefined("name_mover", subject, ""), status="measured", score=torch.zeros(3, 4), chance=torch.zeros(3, 4)
    )})  # fmt: skip
    assert "no name movers" in ROLES["s_inhibition"].score(subject, given, PARAMS).reason
    patcher = PathPatcher(subject, tokenize(hand_set.ioi().splits["discover"], "logit_diff", hand_set.tokenizer()))
    direct = head_effects(patcher, patcher.patch([subject.graph.logits_reader]).metric)
    first = torch.zeros(3, 4)
    first[0, int(direct[0].argmin())] = 100.0
    alone = replace(given, roles={"name_mover": replace(given.roles["name_mover"], score=first)})
    assert "first block" in ROLES["s_inhibition"].score(subject, alone, PARAMS).reason
