"""Models whose circuit is known: a linear one with integers on paper, and one set by hand that solves IOI."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

from ontogeny.analysis import tokenize_splits
from ontogeny.attribution import METHODS, score_edges
from ontogeny.core.circuit import rank_edges
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject, subject_of
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from support.hand_set import ioi, s_inhibition_path

E, F = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, -1.0])


@lru_cache
def linear_subject() -> Subject:
    """Two layers of one head that looks everywhere alike; the MLPs do nothing; norms with a vast epsilon scale by 1.

    Head 0 turns E into 2 F, head 1 turns E into 5 F and F into 3 F; token 1 is 2 E, all others are nothing; the metric
    reads how many F there are.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=8,
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=8,
        rotary_pct=0.5,
        layer_norm_eps=1e12,
        tie_word_embeddings=False,
    )
    model: Any = GPTNeoXForCausalLM(config).double().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.fill_(1e6 if "norm" in name and name.endswith("weight") else 0.0)
    model.gpt_neox.embed_in.weight[1] = 2 * E
    model.get_output_embeddings().weight[5, 2] = 1.0
    values = torch.zeros(2, 4, 4, dtype=torch.float64)
    values[0, 0], values[0, 1] = F, -F
    values[1, 0], values[1, 2] = 5 * F, 3 * F
    for layer, value in zip(model.gpt_neox.layers, values):
        layer.attention.query_key_value.weight[8:12] = value.T
        layer.attention.dense.weight.copy_(torch.eye(4))
    return subject_of(model)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"eap_ig_activations"}))
def test_integers_on_paper(method: str):
    """Of two tokens the second is 2 E, or nothing. Heads halve what they read, as they look at both tokens.

    Head 0 writes 2E/2 -> 2F; head 1 writes 2E/2 -> 5F and 2F/2 -> 3F, 8F in all. So there are 2 + 8 = 10 F at the end,
    and head 0's input is worth the 2 F that it writes and the 3 F that head 1 makes of them. (Not so for
    `eap_ig_activations`, which lets nothing flow back through the layer that it moves.)
    """
    subject = linear_subject()
    batch = PairBatch(
        clean=torch.tensor([[0, 1]]),
        corrupted=torch.tensor([[0, 0]]),
        lengths=torch.tensor([2]),
        answer_ids=torch.tensor([[5, 0]]),
        answer_weights=torch.tensor([[1.0, -1.0]], dtype=torch.float64),
        metric="logit_diff",
    )
    worth = {
        "input->a0.h0<v>": 5.0,
        "input->a1.h0<v>": 5.0,
        "a0.h0->a1.h0<v>": 3.0,
        "a0.h0->logits": 2.0,
        "a1.h0->logits": 8.0,
    }
    expected = torch.zeros(subject.graph.n_writers, subject.graph.n_readers, dtype=torch.float64)
    for name, value in worth.items():
        expected[subject.graph.edge_index(name)] = value
    found = score_edges(subject, batch, AttributionParams(method=method, steps=3))  # type: ignore[arg-type]
    torch.testing.assert_close(found.values, expected, atol=1e-9, rtol=0)
    evaluator = CircuitEvaluator(subject, batch)
    metrics = [float(evaluator.evaluate(rank_edges(found).circuit(n))) for n in (0, 2, 3, 4, 5)]
    assert metrics == pytest.approx([0.0, 5.0, 5.0, 8.0, 10.0], abs=1e-9)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"exact"}))
def test_a_planted_circuit_is_recovered(method: str):
    """Duplicate-token head -> S-inhibition head -> name mover: nothing else has a score, and little else is needed."""
    planted = s_inhibition_path()
    subject, graph = planted.subject, planted.subject.graph
    batch = tokenize_splits(subject, ioi())["discover"]
    scores = score_edges(subject, batch, AttributionParams(method=method))  # type: ignore[arg-type]
    heads = {graph.head_writer(*head) for head in planted.heads.values()}
    idle = [u for u in range(1, graph.n_writers) if u not in heads]
    assert float(scores.values[idle].abs().max()) < 1e-12 * float(scores.values.abs().max())
    evaluator, ranking = CircuitEvaluator(subject, batch), rank_edges(scores)
    whole = float(evaluator.clean.mean())
    circuits = (ranking.circuit(2**k) for k in range(10))
    circuit = next(c for c in circuits if float(evaluator.evaluate(c).mean()) > 0.8 * whole)
    assert whole > 0
    assert set(circuit.nodes[1:-1].nonzero().flatten().add(1).tolist()) == heads
    assert circuit.n_edges < 40
