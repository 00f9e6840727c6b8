"""Seconds on this device, measured: a pass of a prompt, a circuit, loading a model, a step of training.

A model of the member's own shape with random weights does the work, if it is small; otherwise a GPT-NeoX that is, and
seconds grow with the operations. Random weights take as long as trained ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ontogeny.analysis import DTYPES
from ontogeny.attribution import score_edges
from ontogeny.core.circuit import EdgeScores, rank_edges
from ontogeny.core.pairs import PairBatch
from ontogeny.core.tuning import ScoreSetting
from ontogeny.models.ladder import Batch, weighted_loss
from ontogeny.models.neox import initial_parameters, neox_config
from ontogeny.models.optimiser import Optimiser
from ontogeny.models.outline import Outline, outline_of, random_model
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AnalyseParams, AttributionParams, CheckpointsParams, ScaleParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.planning.effort import PROMPT, Effort, flops_per_token
from ontogeny.tuning.cost import passes

LARGEST = 30_000_000
"""Numbers in a model that is measured itself."""
PROXY = neox_config(ScaleParams(layers=4, heads=8, d_model=512), context=128, vocabulary=4096, rotary=0.25).to_json()
"""Stands for larger ones; its vocabulary is small, as answers are read at one position only."""
RUNS = 3
CIRCUITS = 8
SHARE = 0.05
"""Of the edges, in the circuits that are evaluated."""
TRAINING_STEPS = 2


@dataclass(frozen=True)
class Calibration:
    """Seconds of one worker for a model of one shape."""

    forward: float
    """A pass of one prompt, also backwards."""
    circuit: float
    """A circuit on one prompt."""
    operation: float
    """A floating-point operation of a matrix product."""
    load: float
    """Loading and checking a checkpoint."""

    def seconds(self, effort: Effort) -> float:
        """Of an effort; loading is not in it."""
        return effort.forward * self.forward + effort.circuits * self.circuit + effort.extra * self.operation


@contextmanager
def as_a_worker() -> Iterator[None]:
    """One torch thread and no bars in this block, as workers have it."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def calibrate(config: Mapping[str, Any], outline: Outline, settings: AnalyseParams, device: str) -> Calibration:
    """Measure for a model; takes a second or two.

    Args:
        config: its config.json.
        outline: the same, read.
        settings: section `analyse`.
        device: `execution.device`.
    """
    measured = config if outline.parameters <= LARGEST else PROXY
    proxy = outline if outline.parameters <= LARGEST else outline_of(measured)
    dtype, work = DTYPES[settings.precision], flops_per_token(proxy.architecture) * PROMPT
    with tempfile.TemporaryDirectory() as folder:
        random_model(measured, "cpu", torch.float32).save_pretrained(folder)
        load = _seconds(lambda: load_subject(folder, device=device, dtype=dtype))
        subject = load_subject(folder, device=device, dtype=dtype)
    batch = _random_pairs(subject, 70)
    scoring, circuit = _seconds_of_scores(subject, batch, settings.attribution), _seconds_of_circuits(subject, batch)
    scale = flops_per_token(outline.architecture) * PROMPT / work
    return Calibration(
        forward=scoring * scale,
        circuit=circuit * scale,
        operation=scoring / work,
        load=load * outline.parameters / proxy.parameters,
    )


def seconds_per_step(scale: ScaleParams, settings: CheckpointsParams, vocabulary: int, device: str) -> float:
    """Of the training of a ladder's member, on random rows."""
    config = neox_config(scale, settings.context, vocabulary, settings.rotary)
    parameters = {n: v.to(device).requires_grad_() for n, v in initial_parameters(config, 0).items()}
    optimiser = Optimiser(parameters, scale, settings)
    rows, tokens = settings.batch, settings.context
    ids = torch.randint(vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, tokens, tokens)
    weights = torch.full((rows, tokens), 1 / ids.numel())
    batch = Batch(*(t.to(device) for t in (ids, ids.roll(-1, dims=1), weights, mask)))

    def steps(count: int) -> None:
        for step in range(count):
            weighted_loss(parameters, config, batch).backward()
            optimiser.step(step)

    steps(1)
    return _seconds(lambda: steps(TRAINING_STEPS)) / TRAINING_STEPS


def _seconds_of_scores(subject: Subject, batch: PairBatch, settings: AttributionParams) -> float:
    """A pass of one prompt, from scoring edges; `exact`, which takes a pass an edge, is measured as EAP-IG."""
    chosen = settings if settings.method != "exact" else AttributionParams()
    one = passes(ScoreSetting(chosen.method, chosen.rule, chosen.steps), subject.graph)
    return _seconds(lambda: score_edges(subject, batch, chosen)) / len(batch) / (one.forward + one.backward)


def _seconds_of_circuits(subject: Subject, batch: PairBatch) -> float:
    """A circuit on one prompt: of rising sizes about the usual one, as a search evaluates them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(subject.graph.n_writers, subject.graph.n_readers, generator=generator)
    ranking = rank_edges(EdgeScores(subject.graph, values * subject.graph.real_edges, "random"), "greedy")
    usual = max(CIRCUITS, round(SHARE * subject.graph.n_edges))
    sizes = [max(1, min(subject.graph.n_edges, usual + place)) for place in range(CIRCUITS)]
    evaluator = CircuitEvaluator(subject, batch)

    def evaluate() -> None:
        evaluator.forget()
        for size in sizes:
            evaluator.evaluate(ranking.circuit(size))

    return _seconds(evaluate) / len(batch) / CIRCUITS


def _random_pairs(subject: Subject, pairs: int) -> PairBatch:
    """Random prompts that differ from the first token on."""
    generator = torch.Generator().manual_seed(1)
    vocab = min(subject.architecture.vocab, 500)
    clean, corrupted = (torch.randint(vocab, (pairs, PROMPT), generator=generator) for _ in range(2))
    answers = torch.tensor([[0, 1]]).expand(pairs, 2)
    weights = torch.tensor([[1.0, -1.0]]).expand(pairs, 2)
    return PairBatch(clean, corrupted, torch.full((pairs,), PROMPT), answers, weights, "logit_diff")


def _seconds(work: Callable[[], object]) -> float:
    """The least of a few runs: what else the machine does only ever adds."""
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)
