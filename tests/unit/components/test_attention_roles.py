"""Attention roles: against a loop over positions on Hugging Face's patterns, chance against simulation."""

from dataclasses import replace

import pytest
import torch

from ontogeny.components import ROLES, Material, holders
from ontogeny.components.attention_roles import CURVE, by_lag, repeated_run, uniform_by_lag
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import AttentionParams, RolesParams
from support import hand_set
from support.engine import neox_subject
from support.naive_roles import KINDS, model_of, over_heads, subject_of_kind

FEW = RolesParams(attention=AttentionParams(sequences=3))
NAMES = ("induction", "previous_token", "duplicate_token")


def measure(subject: Subject, params: RolesParams = FEW) -> dict[str, RoleScores]:
    found: dict[str, RoleScores] = {}
    for name in NAMES:
        found[name] = ROLES[name].score(subject, Material(roles=found), params)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_losses_are_those_of_a_loop_over_positions(kind: str) -> None:
    subject, model = subject_of_kind(kind), model_of(kind)
    run = repeated_run(subject, FEW.attention)
    n = run.length
    patterns, losses = [], ([], [])
    for row in run.tokens:
        out = model(row[None], output_attentions=True)
        patterns.append([pattern[0] for pattern in out.attentions])
        chosen = out.logits[0].log_softmax(-1)[torch.arange(2 * n - 1), row[1:]]
        losses[0].append(-float(chosen[: n - 1].mean()))
        losses[1].append(-float(chosen[n : 2 * n - 1].mean()))

    def mean(layer: int, head: int, pairs: list[tuple[int, int]]) -> float:
        return sum(float(p[layer][head, q, k]) for p in patterns for q, k in pairs) / len(pairs) / len(patterns)

    pairs = {
        "induction": [(q, q - n + 1) for q in range(n, 2 * n)],
        "previous_token": [(q, q - 1) for q in range(1, 2 * n)],
        "duplicate_token": [(q, q - n) for q in range(n, 2 * n)],
    }
    found = measure(subject)
    for name, where in pairs.items():
        expected = over_heads(model, lambda layer, head, where=where: mean(layer, head, where))
        assert expected.std() > 1e-4
        torch.testing.assert_close(found[name].score, expected, atol=1e-6, rtol=0)
    facts = found["induction"].facts
    assert facts["loss_first"] == pytest.approx(sum(losses[0]) / len(losses[0]), abs=1e-5)
    assert facts["loss_second"] == pytest.approx(sum(losses[1]) / len(losses[1]), abs=1e-5)


def test_the_run_is_ordinary_tokens_said_twice() -> None:
    subject = hand_set.induction_pair().subject
    run = repeated_run(subject, AttentionParams(sequences=7))
    n = run.length
    assert n == hand_set.CONTEXT // 2
    assert run.tokens.shape == (7, 2 * n)
    torch.testing.assert_close(run.tokens[:, :n], run.tokens[:, n:])
    assert all(len(row[:n].unique()) == n for row in run.tokens)
    special = set(hand_set.tokenizer().ids().values()) - set(hand_set.tokenizer().ordinary_ids())
    assert len(special) == 2
    assert not special & set(run.tokens.flatten().tolist())
    again, other = (repeated_run(subject, AttentionParams(sequences=7, seed=seed)) for seed in (0, 1))
    torch.testing.assert_close(again.tokens, run.tokens)
    assert not torch.equal(other.tokens, run.tokens)


@pytest.mark.parametrize(("longest", "length"), [(100, 24), (10, 10)])
def test_the_run_is_as_long_as_context_and_setting_allow(longest: int, length: int) -> None:
    run = repeated_run(hand_set.induction_pair().subject, AttentionParams(sequences=2, longest=longest))
    assert run.length == length


def test_the_curve_is_read_off_the_diagonals() -> None:
    pattern = torch.rand(2, 6, 6, dtype=torch.float64).tril()
    curve = by_lag(pattern, 3)
    for lag in range(6):
        entries = [(q, q - lag) for q in range(lag, 6) if (q, q - lag) != (2, 0)]
        expected = torch.stack([pattern[:, q, k] for q, k in entries]).mean(0)
        torch.testing.assert_close(curve[:, lag], expected)


def test_chance_is_what_a_head_scores_that_looks_anywhere() -> None:
    n, draws = 8, 40_000
    generator = torch.Generator().manual_seed(0)
    q = torch.arange(2 * n)
    k = (torch.rand(draws, 2 * n, generator=generator) * (q + 1)).long()
    for lag, first in ((1, 1), (n - 1, n), (n, n)):
        hits = ((q - k) == lag)[:, first:].double().mean(dim=1)
        error = float(hits.std()) / draws**0.5
        assert float(uniform_by_lag(n)[lag]) == pytest.approx(float(hits.mean()), abs=4 * error)


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    subject = neox_subject(layers=2, heads=3, vocab=80)
    weights = subject.weights
    tiny = replace(weights, blocks=tuple(replace(b, qkv=1e-3 * b.qkv, qkv_bias=0 * b.qkv_bias) for b in weights.blocks))
    for scores in measure(replace(subject, weights=tiny)).values():
        torch.testing.assert_close(scores.score, scores.chance, rtol=0.02, atol=0)


def test_the_other_two_are_points_of_inductions_curve() -> None:
    found = measure(subject_of_kind("gpt_neox"))
    alone = ROLES["duplicate_token"].score(subject_of_kind("gpt_neox"), Material(), FEW)
    torch.testing.assert_close(alone.score, found["duplicate_token"].score)
    curve, n = found["induction"].details[CURVE], int(found["induction"].facts["length"])
    torch.testing.assert_close(found["previous_token"].score, curve[..., 1])
    assert curve.shape == (3, 4, 2 * n)


def test_a_context_without_room_is_undefined() -> None:
    subject = neox_subject()
    weights = replace(subject.weights, architecture=replace(subject.architecture, context=6))
    for name, scores in measure(replace(subject, weights=weights)).items():
        assert (scores.role, scores.status) == (name, "undefined")
        assert "context of 6 tokens" in scores.reason
        assert bool(scores.score.isnan().all())


def test_induction_needs_a_gain() -> None:
    found = measure(hand_set.induction_pair().subject)["induction"]
    thresholds = FEW.thresholds
    assert holders(found, thresholds) == ((1, 2),)
    assert found.facts["loss_second"] < 0.2 < found.facts["loss_first"]
    no_gain = replace(found, facts={**found.facts, "loss_second": found.facts["loss_first"]})
    assert holders(no_gain, thresholds) == ()
