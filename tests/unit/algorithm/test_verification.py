"""Checks of circuits: shares on paper, years one prompt and one head at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from ontogeny.algorithm.verification import (
    mlp_dominance,
    roles_of_heads,
    verify,
    without_role,
    year_checks,
    year_positions,
)
from ontogeny.core.circuit import Circuit, EdgeScores, full_circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import TaskDataset, tokenize
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import ThresholdParams
from ontogeny.tasks import get_task, words
from ontogeny.tasks.tokenizer import FileTokenizer, train_tokenizer
from support.engine import NaiveNeoX, neox_model, neox_subject, see_all
from support.naive_paths import attention_row

GRAPH = GraphSpec(2, 1)
"""21 edges: 4 into block 0, 12 into block 1 (from input, a0.h0, m0), 5 into the logits; 4 + 1 + 1 leave MLPs."""


def edges(scores: dict[str, float]) -> torch.Tensor:
    """Scores of some edges by name; 0 for the others."""
    values = torch.zeros(GRAPH.real_edges.shape, dtype=torch.float64)
    for name, score in scores.items():
        values[GRAPH.edge_index(name)] = score
    return values


BY_HAND = {
    "input->a0.h0<v>": 1.0,
    "a0.h0->a1.h0<q>": -2.0,
    "m0->a1.h0<v>": 3.0,
    "m1->logits": -1.0,
    "input->logits": 3.0,
}
SCORES = EdgeScores(GRAPH, edges(BY_HAND), "by hand")
CIRCUIT = Circuit(GRAPH, SCORES.values != 0)


def test_mlp_dominance_on_paper():
    assert GRAPH.n_edges == 4 + 4 * 3 + 5 == int(GRAPH.real_edges.sum())
    found = mlp_dominance(CIRCUIT, SCORES)
    assert found["mlp_share_of_score"] == pytest.approx(4 / 10)
    assert found["mlp_share_of_circuit"] == pytest.approx(2 / 5)
    assert found["mlp_share_of_graph"] == pytest.approx((4 + 1 + 1) / 21)
    even = EdgeScores(GRAPH, GRAPH.real_edges.double(), "even")
    assert mlp_dominance(full_circuit(GRAPH), even)["mlp_share_of_score"] == pytest.approx(6 / 21)
    assert math.isnan(mlp_dominance(CIRCUIT, None)["mlp_share_of_score"])


def role(name: str, *score: float) -> RoleScores:
    values = torch.tensor(score, dtype=torch.float64)[:, None]
    return RoleScores(name, "measured", "", values, torch.zeros_like(values), {}, {})


def test_roles_of_a_circuit_and_what_has_none():
    roles = {
        "previous_token": role("previous_token", 0.9, 0.0),
        "duplicate_token": role("duplicate_token", 0.5, 0.0),
        "successor": replace(role("successor", 0.9, 0.9), status="undefined", reason="No lists."),
    }
    held = roles_of_heads(CIRCUIT, roles, ThresholdParams())
    assert held == {(0, 0): ("previous_token", "duplicate_token"), (1, 0): ()}
    known = without_role(CIRCUIT, SCORES, held)
    assert known["unknown_role_share_of_heads"] == pytest.approx(1 / 2)
    # edges of the circuit out of heads: a0.h0->a1.h0<q> alone
    assert known["unknown_role_share_of_score"] == 0.0
    louder = EdgeScores(GRAPH, SCORES.values + edges({"a1.h0->logits": 6.0}), "by hand")
    with_it = Circuit(GRAPH, louder.values != 0)
    assert without_role(with_it, louder, held)["unknown_role_share_of_score"] == pytest.approx(6 / 8)
    nobody = Circuit(GRAPH, edges({"input->logits": 1.0}) != 0)
    assert math.isnan(without_role(nobody, SCORES, {})["unknown_role_share_of_heads"])


# Greater-than


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FileTokenizer:
    """Splits " 1732" into " 17" and "32"; knows the frame and the events."""
    sentences = [f"The {event} lasted from the year {c}{y} to the year {c}"
                 for event in words.EVENTS[:8] for c in words.CENTURIES for y in words.YEARS]  # fmt: skip
    return train_tokenizer(sentences, [f" {event}" for event in words.EVENTS], tmp_path_factory.mktemp("years"))


@lru_cache
def greater_than(tokenizer: FileTokenizer) -> TaskDataset:
    return get_task("greater_than").generate(tokenizer, 10)


def year_subject(tokenizer: FileTokenizer) -> Subject:
    return replace(neox_subject(layers=2, vocab=len(tokenizer.ids())), tokenizer=tokenizer)


def test_yy_is_found_in_the_string(tokenizer: FileTokenizer):
    pairs = greater_than(tokenizer).splits["discover"]
    places = year_positions(pairs, tokenizer)
    assert places is not None
    for pair, place in zip(pairs, places.tolist(), strict=True):
        ids = tokenizer.encode(pair.clean)
        assert tokenizer.decode([ids[place]]) == pair.slots["YY"]
        assert tokenizer.decode([ids[place - 1]]) == f" {pair.slots['XX']}"
    later = replace(pairs[0], clean="It is known that t" + pairs[0].clean[1:])
    moved = year_positions((pairs[0], later), tokenizer)
    assert moved is not None
    assert int(moved[1]) > int(moved[0])


class WholeYears:
    """Each word is a token, years too."""

    digest = "0"

    def encode(self, text: str) -> list[int]:
        return [sum(map(ord, word)) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def test_a_year_that_is_one_token_is_not_measured(tokenizer: FileTokenizer):
    assert year_positions(greater_than(tokenizer).splits["discover"], WholeYears()) is None


def test_year_checks_are_those_of_one_prompt_and_one_head_at_a_time(tokenizer: FileTokenizer):
    subject, data = year_subject(tokenizer), greater_than(tokenizer)
    pairs = data.splits["discover"]
    batch = tokenize(pairs, data.metric, tokenizer)
    found = year_checks(subject, data, batch)
    model = neox_model(layers=2, vocab=len(tokenizer.ids()))
    naive, norm = NaiveNeoX(model), model.gpt_neox.final_layer_norm
    bias = sum(b.attention.dense(naive._value_bias(b)) for b in model.gpt_neox.layers)
    years = [tokenizer.encode(year)[0] for year in words.YEARS]
    unembed = model.get_output_embeddings().weight[years]
    looks, peaks, mlps = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.float64)
    for row, pair in enumerate(pairs):
        written, _ = naive.run(naive.embed(batch.clean[row, : int(batch.lengths[row])]), see_all)
        final = sum(z[-1] for z in written) + bias
        sigma = (final.var(unbiased=False) + norm.eps).sqrt()
        start = int(pair.slots["YY"])
        place = [tokenizer.decode([i]) for i in batch.clean[row].tolist()].index(pair.slots["YY"])

        def lens(u: int, written: list[torch.Tensor] = written, sigma: torch.Tensor = sigma) -> torch.Tensor:
            z = written[u][-1]
            return (z - z.mean()) / sigma * norm.weight @ unembed.T

        for layer in range(2):
            for head in range(3):
                peaks[layer, head] += int(lens(naive.graph.head_writer(layer, head)).argmax()) in (start, start + 1)
                looks[layer, head] += int(attention_row(naive, written, written, (layer, head)).argmax()) == place
            values = lens(naive.graph.mlp_writer(layer))
            mlps[layer] += (values[start + 1 :].mean() - values[: start + 1].mean()) / len(pairs)
    torch.testing.assert_close(found.by_head["attend_to_yy"], looks / len(pairs))
    torch.testing.assert_close(found.by_head["peak_after_yy"], peaks / len(pairs))
    torch.testing.assert_close(found.mlps, mlps, atol=1e-10, rtol=0)
    assert looks.std() > 0
    assert found.mlps.abs().min() > 1e-3


def test_only_greater_than_asks_for_years(tokenizer: FileTokenizer):
    subject, data = year_subject(tokenizer), greater_than(tokenizer)
    batch = tokenize(data.splits["discover"], data.metric, tokenizer)
    circuit = full_circuit(subject.graph)
    scores = EdgeScores(subject.graph, subject.graph.real_edges.double(), "even")
    years, other = (
        verify(subject, task, data, batch, circuit, scores, {}, ThresholdParams()) for task in ("greater_than", "sva")
    )
    assert set(years.heads) == {"attend_to_yy", "peak_after_yy"}
    assert set(years.mlps) == {"valid_minus_invalid"}
    assert (other.heads, other.mlps) == ({}, {})
    share = float((years.heads["attend_to_yy"] > 0.5).double().mean())
    assert years.numbers["heads_that_attend_to_yy"] == pytest.approx(share)
    assert set(other.numbers) < set(years.numbers)
    assert years.roles == {f"a{layer}.h{head}": () for layer in range(2) for head in range(3)}
    assert years.numbers["unknown_role_share_of_heads"] == 1.0
