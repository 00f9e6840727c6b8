"""Self-repair against two runs of a second implementation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ontogeny.algorithm.self_repair import self_repair
from ontogeny.core.pairs import PairBatch
from ontogeny.core.roles import RoleScores
from ontogeny.params import ThresholdParams
from ontogeny.patching.path_patching import PathPatcher
from support.engine import NaiveNeoX, naive_metric, neox_model, neox_subject, random_batch, see_all

SCORE = torch.tensor([[0.0, 0.9, 0.0], [0.5, 0.0, 0.8], [0.0, 0.4, 0.0]], dtype=torch.float64)
SCORES = RoleScores("previous_token", "measured", "", SCORE, torch.zeros_like(SCORE), {}, {})


def naive_repair(batch: PairBatch, ablated: set[int]) -> tuple[float, dict[int, float], float, float]:
    """What is lost, each other writer's change, the fall of the metric, and that of the metric at the clean norm."""
    model = neox_model(layers=3)
    naive, norm = NaiveNeoX(model), model.gpt_neox.final_layer_norm
    unembed = model.get_output_embeddings().weight
    bias = sum(b.attention.dense(naive._value_bias(b)) for b in model.gpt_neox.layers)
    lost, total, frozen = 0.0, 0.0, 0.0
    change = dict.fromkeys(range(naive.graph.n_writers), 0.0)
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        inputs = [naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted)]
        (clean, logits), (corrupted, _) = (naive.run(x, see_all) for x in inputs)
        then = corrupted
        after, broken = naive.run(inputs[0], see_all, lambda u, z, then=then: then[u] if u in ablated else z)
        final = sum(z[-1] for z in clean) + bias
        sigma = (final.var(unbiased=False) + norm.eps).sqrt()

        def at_clean_norm(written: torch.Tensor, sigma: torch.Tensor = sigma, row: int = row) -> float:
            scaled = (written - written.mean()) / sigma * norm.weight @ unembed.T
            return float(naive_metric(scaled, batch, row))

        for u in range(naive.graph.n_writers):
            moved = at_clean_norm(after[u][-1]) - at_clean_norm(clean[u][-1])
            lost -= moved if u in ablated else 0.0
            change[u] += moved / len(batch)
        total += float(naive_metric(logits[-1], batch, row) - naive_metric(broken[-1], batch, row))
        frozen += at_clean_norm(sum(clean)[-1] - sum(after)[-1])  # type: ignore[index]
    return lost / len(batch), change, total / len(batch), frozen / len(batch)


def test_what_is_lost_and_what_makes_up_for_it():
    batch = random_batch(pairs=4, tokens=8, padded=True)
    patcher = PathPatcher(neox_subject(layers=3), batch)
    graph = patcher.graph
    found = self_repair(patcher, SCORES, ThresholdParams(), leading=2)
    assert found.ablated == ((0, 1), (1, 2))
    ablated = {graph.head_writer(*head) for head in found.ablated}
    lost, change, total, frozen = naive_repair(batch, ablated)
    mlps = {graph.mlp_writer(layer) for layer in range(3)}
    close = {"abs": 1e-10}
    assert found.lost == pytest.approx(lost, **close)
    assert found.total == pytest.approx(total, **close)
    assert found.by_mlps == pytest.approx(sum(change[u] for u in mlps), **close)
    assert found.by_heads == pytest.approx(sum(c for u, c in change.items() if u not in mlps | ablated), **close)
    assert found.by_norm == pytest.approx(frozen - total, **close)
    assert found.taken_over == pytest.approx(1 - total / lost)
    assert min(abs(x) for x in (found.lost, found.total, found.by_mlps, found.by_heads, found.by_norm)) > 1e-4
    for layer in range(3):
        for head in range(3):
            own = float(found.change[layer, head])
            if (layer, head) in found.ablated:
                assert math.isnan(own)
            else:
                assert own == pytest.approx(change[graph.head_writer(layer, head)], **close)


def test_only_so_many_heads_are_taken_out():
    patcher = PathPatcher(neox_subject(layers=3), random_batch())
    assert self_repair(patcher, SCORES, ThresholdParams(), leading=9).ablated == ((0, 1), (1, 2), (1, 0), (2, 1))
    assert self_repair(patcher, SCORES, ThresholdParams(attention=0.85), leading=9).ablated == ((0, 1),)


def test_a_role_without_heads_is_undefined():
    patcher = PathPatcher(neox_subject(layers=3), random_batch())
    nobody = self_repair(patcher, replace(SCORES, score=0 * SCORE), ThresholdParams(), leading=2)
    assert (nobody.status, nobody.reason) == ("undefined", "No head holds this role.")
    assert math.isnan(nobody.total)
    assert bool(nobody.change.isnan().all())
    unknown = replace(SCORES, status="undefined", reason="No text.", score=SCORE * math.nan)
    assert self_repair(patcher, unknown, ThresholdParams(), leading=2).reason == "No text."
