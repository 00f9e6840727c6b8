"""A checkpoint of the ladder opens in TransformerLens: its logits, edge scores and circuits are those of the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ontogeny.attribution import score_edges, score_edges_by_example
from ontogeny.core.circuit import rank_edges
from ontogeny.core.faithfulness import Ends
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import PairBatch
from ontogeny.models.ladder import write_checkpoint
from ontogeny.models.neox import initial_parameters, neox_config
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AttributionParams, CorpusParams, ScaleParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.tasks.corpus import build_corpus, load_tokenizer
from support.engine import random_batch

PROMPT = "When John and Mary went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    build_corpus(CorpusParams(train_tokens=1000, held_out_tokens=1000), folder / "corpus")
    vocabulary = len(load_tokenizer(folder / "corpus").ids())
    config = neox_config(ScaleParams(layers=2, heads=2, d_model=32), 128, vocabulary, 0.25)
    parameters = {name: 3 * value for name, value in initial_parameters(config, seed=0).items()}
    write_checkpoint(folder / "member", 0, parameters, config, folder / "corpus" / "tokenizer")
    return folder / "member" / "step0"


def test_transformer_lens_sees_the_same_model(checkpoint: Path) -> None:
    """Float32 through two layers; TransformerLens and the engine order their sums differently."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(checkpoint), device="cpu")
    subject = load_subject(checkpoint)
    assert subject.tokenizer is not None
    ids = torch.tensor([subject.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        logits = bridge(ids)
    ours = subject.logits(ids, torch.tensor([ids.shape[1]]))
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, logits[:, -1], atol=1e-4, rtol=0)


def index_of(graph: GraphSpec, edge: tuple[Any, Any]) -> tuple[int, int]:
    """Place of one of TransformerLens' edges, which it has for every position, in our graph."""
    writer, reader = edge
    source = {"embed": 0}
    if writer.kind == "attn_head_out":
        source[writer.kind] = graph.head_writer(writer.layer, writer.head)
    elif writer.kind == "mlp_out":
        source[writer.kind] = graph.mlp_writer(writer.layer)
    slots = ("q_input", "k_input", "v_input")
    if reader.kind in slots:
        return source[writer.kind], graph.head_reader(reader.layer, slots.index(reader.kind), reader.head)
    mlp = reader.kind == "mlp_in"
    return source[writer.kind], graph.mlp_reader(reader.layer) if mlp else graph.logits_reader


def pairs_for(subject: Subject) -> PairBatch:
    batch = random_batch(vocab=subject.architecture.vocab, pairs=3, tokens=6, first=0)
    assert (batch.clean != batch.corrupted).any(dim=1).all()
    return batch


@pytest.fixture(scope="module")
def bridge(checkpoint: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(checkpoint), device="cpu").eval()


def difference_of(batch: PairBatch, row: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The metric of one example as a function of its logits."""
    ids, signs = batch.answer_ids[row], batch.answer_weights[row].float()
    return lambda logits: (logits.reshape(-1, logits.shape[-1])[-1, ids] * signs).sum()


def test_edge_scores_are_those_of_its_attribution_tool_at_one_step(checkpoint: Path, bridge: Any) -> None:
    """It takes the gradient at the corrupted end: rule `left` with one step. Float32 through two layers."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    subject = load_subject(checkpoint)
    batch = pairs_for(subject)
    theirs = torch.zeros(len(batch), subject.graph.n_writers, subject.graph.n_readers)
    for row in range(len(batch)):
        clean, corrupted = batch.clean[row : row + 1], batch.corrupted[row : row + 1]
        metric, settings = difference_of(batch, row), EdgeAttributionConfig(granularity="edge")
        for edge, score in attribution_patch(bridge, clean, corrupted, metric, settings).edge_scores.items():
            theirs[(row, *index_of(subject.graph, edge))] += score
    ours = score_edges_by_example(subject, batch, AttributionParams(rule="left", steps=1))
    assert ((theirs != 0) == subject.graph.real_edges).float().mean() > 0.9
    assert (theirs[:, ~subject.graph.real_edges] == 0).all()
    torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=0)


def test_circuits_recover_what_it_says(checkpoint: Path, bridge: Any) -> None:
    """Ablate-outside faithfulness of a circuit that is neither empty nor full."""
    from transformer_lens.tools.analysis.attribution_patching import (
        EdgeAttributionConfig,
        attribution_patch,
        faithfulness,
    )

    subject = load_subject(checkpoint)
    batch = pairs_for(subject).take(slice(0, 1))
    ranking = rank_edges(score_edges(subject, batch, AttributionParams()))
    circuit = ranking.circuit(subject.graph.n_edges // 2)
    metric, settings = difference_of(batch, 0), EdgeAttributionConfig(granularity="edge")
    edges = attribution_patch(bridge, batch.clean, batch.corrupted, metric, settings).edge_scores
    kept = [edge for edge in edges if circuit.edges[index_of(subject.graph, edge)]]
    theirs = faithfulness(bridge, batch.clean, batch.corrupted, metric, kept)
    evaluator = CircuitEvaluator(subject, batch)
    ends = Ends(float(evaluator.clean.mean()), float(evaluator.corrupted.mean()))
    ours = ends.faithfulness(float(evaluator.evaluate(circuit).mean()))
    assert 0 < len(kept) < len(edges)
    assert ours.normalised == pytest.approx(theirs.recovered, abs=1e-3)
    assert abs(ours.normalised - 1) > 1e-2
