"""Counterfactual IOI prompts: the letters of METHODS 2.1, and what stays as it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, TaskDataset, tokenize
from ontogeny.tasks.ioi_counterfactuals import CONTROL, SIGNALS, counterfactuals
from support import hand_set

LETTERS = {
    ("ABB", "stranger"): "XYY",
    ("ABB", "token"): "BAA",
    ("ABB", "position"): "BAB",
    ("ABB", "stranger_position"): "XYX",
    ("ABB", "token_position"): "ABA",
    ("BAB", "stranger"): "XYX",
    ("BAB", "token"): "ABA",
    ("BAB", "position"): "ABB",
    ("BAB", "stranger_position"): "XYY",
    ("BAB", "token_position"): "BAA",
}
"""METHODS 2.1; X and Y are two other names, in the order in which they are met."""


def letters(pair: PromptPair, text: str) -> str:
    """Names as letters: A = IO, B = S, X and Y the others as they are met."""
    known = {pair.slots["IO"]: "A", pair.slots["S"]: "B"}
    for name in re.findall("|".join(hand_set.NAMES), text):
        known.setdefault(name, "XY?"[len(known) - 2])
    return "".join(known[name] for name in re.findall("|".join(hand_set.NAMES), text))


def dataset() -> TaskDataset:
    return hand_set.ioi()


def test_every_set_has_the_letters_of_its_signals():
    made, pairs = counterfactuals(dataset()), dataset().splits["discover"]
    seen = set()
    for name in SIGNALS:
        for pair, other in zip(pairs, made[name], strict=True):
            kind = letters(pair, pair.clean)
            seen.add((kind, name))
            assert letters(pair, other.corrupted) == LETTERS[kind, name]
    assert seen == set(LETTERS)


def test_nothing_but_the_names_changes():
    pairs, made = dataset().splits["discover"], counterfactuals(dataset())
    for name in SIGNALS:
        for pair, other in zip(pairs, made[name], strict=True):
            assert replace(other, corrupted=pair.corrupted) == pair
            blank = [re.sub("|".join(hand_set.NAMES), "-", text) for text in (pair.clean, other.corrupted)]
            assert blank[0] == blank[1]
            assert other.corrupted != pair.clean
        tokenize(made[name], "logit_diff", hand_set.tokenizer())


def test_the_control_changes_place_and_object_alone():
    pairs, made = dataset().splits["discover"], counterfactuals(dataset())
    for pair, other in zip(pairs, made[CONTROL], strict=True):
        assert letters(pair, other.corrupted) == letters(pair, pair.clean)
        before, after = pair.clean.split(), other.corrupted.split()
        changed = {a.strip(",.") for a, b in zip(before, after, strict=True) if a != b}
        assert changed == {pair.slots["place"], pair.slots["object"]}
    tokenize(made[CONTROL], "logit_diff", hand_set.tokenizer())


def test_the_same_data_set_gives_the_same_prompts():
    assert counterfactuals(dataset()) == counterfactuals(dataset())
    assert counterfactuals(replace(dataset(), seed=1)) != counterfactuals(dataset())


def test_what_cannot_be_made_is_refused():
    pair = dataset().splits["discover"][0]
    alone = replace(dataset(), splits={"discover": (pair,)})
    with pytest.raises(ImpossibleRequest, match="need four names"):
        counterfactuals(alone)
    twice = replace(pair, clean=pair.clean + f" {pair.slots['S']}")
    with pytest.raises(ImpossibleRequest, match="name IO once and S twice"):
        counterfactuals(replace(dataset(), splits={"discover": (twice, *dataset().splits["discover"])}))
    same = tuple(replace(p, slots={**p.slots, "object": "ring"}) for p in dataset().splits["discover"])
    with pytest.raises(ImpossibleRequest, match="two objects"):
        counterfactuals(replace(dataset(), splits={"discover": same}))
