"""Carried circuits: at home they are what they were; where heads were shuffled, matching finds them again."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from ontogeny.attribution import score_edges
from ontogeny.core.circuit import Circuit, empty_circuit, full_circuit, grow, jaccard_edges
from ontogeny.core.faithfulness import Ends
from ontogeny.models.subject import Subject, subject_of
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.transfer import Carried, CarriedCircuit, carry, carry_seeds, rename_heads
from support.engine import neox_model, neox_subject, random_batch

TO = np.array([[2, 0, 1], [1, 2, 0]])
BATCH = random_batch(pairs=6)


def shuffled_model() -> Subject:
    """The same model with head (l, h) in the place of head (l, TO[l, h]): the same function."""
    model: Any = copy.deepcopy(neox_model())
    for layer, to in zip(model.gpt_neox.layers, TO.tolist()):
        attention, heads, size = layer.attention, len(to), 8
        for parameter in (attention.query_key_value.weight, attention.query_key_value.bias):
            by_head = parameter.data.view(heads, 3 * size, -1)
            by_head[to] = by_head.clone()
        columns = attention.dense.weight.data.view(-1, heads, size)
        columns[:, to] = columns.clone()
    return subject_of(model)


def circuit_of(subject: Subject, kept: int = 14) -> Circuit:
    return grow(score_edges(subject, BATCH, AttributionParams()), kept)


def by_heads(found: tuple[Carried, ...]) -> dict[str, Carried]:
    return {each.heads: each for each in found}


def test_at_home_it_is_the_circuits_own_faithfulness() -> None:
    subject = neox_subject()
    circuit = circuit_of(subject)
    evaluator = CircuitEvaluator(subject, BATCH)
    (at_home, _) = carry(evaluator, [CarriedCircuit("a-s0", 8, circuit)], circuit, 3, 0)
    again = CircuitEvaluator(subject, BATCH)
    own = Ends(*(float(x.mean()) for x in (again.clean, again.corrupted))).faithfulness(
        float(again.evaluate(circuit).mean())
    )
    assert at_home.faithfulness.raw == pytest.approx(own.raw, rel=1e-12)
    assert at_home.faithfulness.normalised == pytest.approx(own.normalised, rel=1e-12)
    assert (at_home.heads, at_home.kept, at_home.jaccard) == ("own", circuit.n_edges, 1.0)
    assert 0 < circuit.n_edges < subject.graph.n_edges


def test_the_whole_graph_and_no_edge_are_the_ends() -> None:
    subject = neox_subject()
    sources = [
        CarriedCircuit("a-s0", step, make(subject.graph)) for step, make in ((1, full_circuit), (2, empty_circuit))
    ]
    found = carry(CircuitEvaluator(subject, BATCH), sources, None, 2, 0)
    whole, nothing = (each for each in found if each.heads == "own")
    assert whole.faithfulness.normalised == pytest.approx(1, abs=1e-10)
    assert nothing.faithfulness.normalised == pytest.approx(0, abs=1e-10)
    assert np.isnan(whole.jaccard)


def test_matching_takes_a_circuit_into_a_model_whose_heads_were_shuffled() -> None:
    """The independent route: the shuffled model computes the same function, so that nothing but names may differ."""
    source, target = neox_subject(), shuffled_model()
    circuit = circuit_of(source)
    here, there = CircuitEvaluator(source, BATCH), CircuitEvaluator(target, BATCH)
    assert torch.allclose(here.clean, there.clean, atol=1e-10)
    own = float(here.evaluate(circuit).mean())
    at_target = circuit_of(target)
    found = by_heads(carry_seeds(there, [CarriedCircuit("a-s1", 8, circuit)], {"a-s1": TO}, at_target, 4, 0))
    assert list(found) == ["unmatched", "matched", "random"]
    assert found["matched"].faithfulness.metric == pytest.approx(own, abs=1e-10)
    assert found["matched"].jaccard == 1.0
    assert abs(found["unmatched"].faithfulness.metric - own) > 1e-3
    assert found["unmatched"].jaccard == jaccard_edges(circuit, at_target) < 1


def test_random_matchings_are_the_mean_of_their_draws_and_repeat_themselves() -> None:
    subject = neox_subject()
    circuit, evaluator = circuit_of(subject), CircuitEvaluator(subject, BATCH)
    source = CarriedCircuit("a-s0", 8, circuit)
    one, other = (by_heads(carry(evaluator, [source], circuit, 5, seed))["random"] for seed in (0, 1))
    assert one == by_heads(carry(CircuitEvaluator(subject, BATCH), [source], circuit, 5, 0))["random"]
    assert one.faithfulness.metric != other.faithfulness.metric
    generator = torch.Generator().manual_seed(0)
    metrics, alike = [], []
    for _ in range(5):
        names = np.stack([torch.randperm(3, generator=generator).numpy() for _ in range(2)])
        drawn = rename_heads(circuit, names)
        metrics.append(float(CircuitEvaluator(subject, BATCH).evaluate(drawn).mean()))
        alike.append(jaccard_edges(drawn, circuit))
    assert one.faithfulness.metric == pytest.approx(np.mean(metrics), rel=1e-12)
    assert one.jaccard == pytest.approx(np.mean(alike))
