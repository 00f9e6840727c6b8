"""Tokenised pairs: ids, padding, weights, groups, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, TaskDataset, tokenize


class Letters:
    """One token a character; `a` is 1."""

    digest = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(c) - 96 for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i + 96) for i in ids)


def pair(clean: str, corrupted: str, template: str = "t", correct: str = "x", incorrect: str = "y") -> PromptPair:
    return PromptPair(clean, corrupted, tuple(correct), tuple(incorrect), template, {"A": clean[0]})


def test_ids_padding_and_weights_on_paper():
    batch = tokenize([pair("abc", "abd"), pair("ab", "bb", correct="xz")], "prob_diff", Letters())
    assert batch.clean.tolist() == [[1, 2, 3], [1, 2, 0]]
    assert batch.corrupted.tolist() == [[1, 2, 4], [2, 2, 0]]
    assert batch.lengths.tolist() == [3, 2]
    assert batch.answer_ids.tolist() == [[24, 25, 0], [24, 26, 25]]
    assert batch.answer_weights.tolist() == [[1, -1, 0], [1, 1, -1]]
    assert batch.metric == "prob_diff"
    assert len(batch) == 2


def test_groups_are_templates_of_one_length():
    pairs = [pair("abc", "abd", "s"), pair("ab", "bb", "s"), pair("cde", "cdf", "s"), pair("abc", "abd", "t")]
    batch = tokenize(pairs, "logit_diff", Letters())
    assert batch.groups is not None
    assert batch.groups.tolist() == [0, 1, 0, 2]


def test_rows_are_taken_whole():
    batch = tokenize([pair("abc", "abd"), pair("ab", "bb"), pair("ca", "da")], "logit_diff", Letters())
    some = batch.take(torch.tensor([2, 0]))
    assert some.clean.tolist() == [[3, 1, 0], [1, 2, 3]]
    assert some.lengths.tolist() == [2, 3]
    assert some.groups is not None
    assert len(some) == len(some.groups) == 2
    assert len(batch.take(slice(1, None))) == 2


def test_what_is_refused():
    with pytest.raises(ImpossibleRequest, match="same number of tokens, got 3 and 2"):
        tokenize([pair("abc", "ab")], "logit_diff", Letters())
    with pytest.raises(ImpossibleRequest, match="'xx' must be one token"):
        tokenize([PromptPair("ab", "cb", ("xx",), ("y",), "t", {})], "logit_diff", Letters())
    with pytest.raises(ImpossibleRequest, match="No prompt pairs"):
        tokenize([], "logit_diff", Letters())


def test_a_data_set_round_trips_and_its_digest_sees_everything():
    data = TaskDataset("ioi", "logit_diff", "s2_io", 0, "letters", {"discover": (pair("abc", "abd"),), "held_out": ()})
    again = TaskDataset.from_json(data.to_json())
    assert again == data
    assert again.digest == data.digest
    assert len(data.digest) == 32
    other = TaskDataset("ioi", "logit_diff", "s2_io", 0, "letters", {"discover": (pair("abc", "abe"),), "held_out": ()})
    assert other.digest != data.digest
