"""Successor scores: against one head and one pair at a time, chance against random readouts."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.components import ROLES, Material
from ontogeny.components.successor import ordered_lists, successes
from ontogeny.models.subject import subject_of
from ontogeny.params import RolesParams, SuccessorParams
from ontogeny.tasks import words
from ontogeny.tasks.tokenizer import train_tokenizer
from support import hand_set
from support.engine import neox_model, neox_subject
from support.naive_roles import KINDS, first_mlp, model_of, ov_logits, over_heads, subject_of_kind

SCORE = ROLES["successor"].score


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_one_pair_at_a_time(kind: str) -> None:
    subject, model = subject_of_kind(kind), model_of(kind)
    spelled = {name: hand_set.ids(words.SEQUENCES[name]) for name in hand_set.LISTS}
    pairs = {name: list(itertools.pairwise(row)) for name, row in spelled.items()}
    for name in ("days", "months"):
        pairs[name].append((spelled[name][-1], spelled[name][0]))

    def share(layer: int, head: int) -> float:
        right = 0
        for row in pairs.values():
            targets = [b for _, b in row]
            for a, b in row:
                logits = ov_logits(model, layer, head, first_mlp(model, a))
                right += max(targets, key=lambda t: float(logits[t])) == b
        return right / sum(map(len, pairs.values()))

    expected, found = over_heads(model, share), SCORE(subject, Material(), RolesParams())
    assert expected.std() > 0.01
    torch.testing.assert_close(found.score, expected, atol=1e-9, rtol=0)
    assert found.facts["pairs"] == 7 + 11 + 12
    torch.testing.assert_close(found.chance, torch.full_like(expected, 3 / 30))
    by_list = sum(found.details[f"share/{n}-space"] * len(pairs[n]) for n in pairs) / 30
    torch.testing.assert_close(by_list, expected)


def test_chance_is_what_random_heads_score() -> None:
    """Heads of a model share its embedding, so that the error is that of the models' means: within 4 of them."""
    base = neox_subject(layers=1, heads=40, d_head=2, vocab=hand_set.T)
    generator = torch.Generator().manual_seed(0)

    def noise(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    means, scores = [], None
    for _ in range(20):
        weights = base.weights
        blocks = tuple(replace(b, qkv=noise(b.qkv), out=noise(b.out)) for b in weights.blocks)
        weights = replace(weights, embed=noise(weights.embed), unembed=noise(weights.unembed), blocks=blocks)
        subject = replace(base, weights=weights, tokenizer=hand_set.tokenizer())
        scores = SCORE(subject, Material(), RolesParams())
        means.append(float(scores.score.mean()))
    assert scores is not None
    error = float(torch.tensor(means).std()) / len(means) ** 0.5
    assert 0 < error < 0.01
    assert sum(means) / len(means) == pytest.approx(float(scores.chance[0, 0]), abs=4 * error)


def test_without_layernorm_the_sizes_of_what_is_read_count() -> None:
    subject = subject_of_kind("gpt_neox")
    lists = ordered_lists(hand_set.tokenizer(), hand_set.T)
    real, none = successes(subject, lists), successes(subject, lists, norm=False)
    assert not torch.equal(real, none)
    settings = RolesParams(successor=SuccessorParams(layer_norm="none"))
    counts = torch.tensor([len(each.sources) for each in lists]).double()
    torch.testing.assert_close(SCORE(subject, Material(), settings).score, none @ counts / counts.sum())


def test_lists_are_told_apart_by_spelling(tmp_path: Path) -> None:
    four = ("Monday", "Tuesday", "Wednesday", "Thursday")
    texts = [" " + " ".join(four), *four, " " + " ".join(four).lower(), " A B C", " I II III IV"]
    found = ordered_lists(train_tokenizer(texts, [], tmp_path), 100)
    # " A B C" is two pairs, too few; " I II III IV" three
    assert {each.name: len(each.sources) for each in found} == {
        "days-space": 3, "days": 3, "days-case-space": 3, "roman-space": 3,
    }  # fmt: skip
    assert all(torch.equal(each.sources[1:], each.targets[:-1]) for each in found)
    assert ordered_lists(hand_set.tokenizer(), 3) == ()


def test_it_is_undefined_without_words() -> None:
    without = SCORE(neox_subject(), Material(), RolesParams())
    assert without.status == "undefined"
    assert "no tokenizer.json" in without.reason
    small = subject_of(neox_model(vocab=4), tokenizer=hand_set.tokenizer())
    nothing = SCORE(small, Material(), RolesParams())
    assert nothing.status == "undefined"
    assert "No ordered list" in nothing.reason
    assert bool(nothing.score.isnan().all())
