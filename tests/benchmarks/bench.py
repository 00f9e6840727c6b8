"""`make bench`: what the engine costs, as ratios to what it cannot do without, in one process.

    forward   a Hugging Face forward pass over the clean prompts, answers' logits at the read position only
    floor     a corrupted forward pass, and m forward + activation-backward passes, unembedding as above

Work: GPT-NeoX with random weights at a Pythia shape, 70 pairs of 16 tokens, float32, one thread. Random weights make no
circuit faithful, so that the search is driven by a given predicate ("every size fails", "every size passes").
Seconds are those of the CPU: other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import torch
from rich.console import Console
from rich.table import Table

from ontogeny.analysis import analyse_behaviour, analyse_circuit, analyse_scores, tokenize_splits
from ontogeny.attribution import score_edges
from ontogeny.core.circuit import Circuit, EdgeScores, rank_edges
from ontogeny.core.faithfulness import Ends, Sizes, fraction_sizes, search_sizes
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject, load_subject, subject_of
from ontogeny.params import AnalyseParams, AttributionParams, SearchParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.records.datasets import read_dataset

SHAPES = {
    "14m": (6, 128, 4),
    "31m": (6, 256, 8),
    "70m": (6, 512, 8),
    "160m": (12, 768, 12),
    "410m": (24, 1024, 16),
}
VOCAB, PAIRS, TOKENS, STEPS = 50304, 70, 16, 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    seconds: float
    unit: str
    ratio: float
    limit: float | None


def neox(shape: str) -> Any:
    """A model of this shape with random weights."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    layers, width, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=2048,
        rotary_pct=0.25,
        use_parallel_residual=True,
        tie_word_embeddings=False,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def prompts(first: int) -> PairBatch:
    """Pairs that agree before token `first` and differ from there on at every second token."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(1, VOCAB, (PAIRS, TOKENS), generator=generator)
    corrupted = clean.clone()
    corrupted[:, first::2] = torch.randint(1, VOCAB, corrupted[:, first::2].shape, generator=generator)
    ids = torch.randint(1, VOCAB, (PAIRS, 2), generator=generator)
    signs = torch.tensor([[1.0, -1.0]], dtype=torch.float64).repeat(PAIRS, 1)
    return PairBatch(clean, corrupted, torch.full((PAIRS,), TOKENS), ids, signs, "logit_diff")


def forward(model: Any, batch: PairBatch) -> None:
    """One Hugging Face forward pass, the answers' logits at the read position only."""
    with torch.no_grad():
        last = model.gpt_neox(batch.clean, use_cache=False).last_hidden_state[:, -1]
        (model.get_output_embeddings().weight[batch.answer_ids] @ last[:, :, None]).squeeze(-1)


def floor(model: Any, batch: PairBatch) -> None:
    """What EAP-IG cannot do without."""
    embed = model.gpt_neox.embed_in
    with torch.no_grad():
        clean, corrupted = embed(batch.clean), embed(batch.corrupted)
        model.gpt_neox(inputs_embeds=corrupted, use_cache=False)
    for k in range(1, STEPS + 1):
        here = torch.lerp(corrupted, clean, k / STEPS).requires_grad_(True)
        last = model.gpt_neox(inputs_embeds=here, use_cache=False).last_hidden_state[:, -1]
        logits = (model.get_output_embeddings().weight[batch.answer_ids] @ last[:, :, None]).squeeze(-1)
        torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), here)


def medians(pairs: int, ours: Callable[[], object], unit: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of ours and median ratio to the unit, over alternating pairs."""
    ours(), unit()
    seconds, ratios = [], []
    for _ in range(pairs):
        start = time.process_time()
        unit()
        middle = time.process_time()
        ours()
        end = time.process_time()
        seconds.append(end - middle)
        ratios.append((end - middle) / (middle - start))
    return statistics.median(seconds), statistics.median(ratios)


def random_scores(subject: Subject) -> EdgeScores:
    """Scores with the heavy tail that real ones have."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(subject.graph.real_edges.shape, generator=generator) ** 3
    return EdgeScores(subject.graph, values * subject.graph.real_edges, "random")


def given(evaluate: Callable[[Circuit], torch.Tensor], value: float) -> Callable[[Circuit], torch.Tensor]:
    """Evaluates the circuit, and says that its metric is `value`."""

    def measure(circuit: Circuit) -> torch.Tensor:
        return torch.full_like(evaluate(circuit), value)

    return measure


def search(evaluator: CircuitEvaluator, scores: EdgeScores, value: float, *, curve: bool = False) -> int:
    """A search up to 5 % in which every size has the same faithfulness; the number of circuits evaluated."""
    sizes = Sizes(rank_edges(scores), given(evaluator.evaluate, value), Ends(1.0, 0.0))
    search_sizes(sizes, SearchParams(range="paper", scan_up_to=1))
    if curve:
        for fraction, n in fraction_sizes(SearchParams().fractions, scores.graph.n_edges):
            sizes.point(n, fraction)
    return len(sizes.values)


def rows(shape: str, pairs: int) -> list[Row]:
    """All lines for one shape."""
    model = neox(shape)
    subject = subject_of(model)
    large = shape in ("160m", "410m")
    found = []
    for first, limit in ((0, 1.1 if large else 1.0), (10, 0.55)):
        batch = prompts(first)
        seconds, ratio = medians(
            pairs,
            lambda b=batch: score_edges(subject, b, AttributionParams(steps=STEPS)),
            lambda b=batch: floor(model, b),
        )
        found.append(Row(f"EAP-IG m = {STEPS}, differing from token {first}", seconds, "floor", ratio, limit))
    batch, scores = prompts(0), random_scores(subject)
    n = round(0.05 * subject.graph.n_edges)
    ranking = rank_edges(scores)
    circuits = [ranking.circuit(n), ranking.circuit(0)]

    def five_per_cent() -> None:
        evaluator.forget()
        evaluator.evaluate(circuits[0])

    evaluator = CircuitEvaluator(subject, batch)
    unit = lambda: forward(model, batch)  # noqa: E731
    found.append(Row("circuit of 5 % of edges", *_with_unit(medians(pairs, five_per_cent, unit)), 1.15))
    for name, value, curve, limit in (
        ("search to 5 %, every size failing", 0.0, False, 11.0 if large else 6.0),
        ("search to 5 %, every size passing", 1.0, False, 4.0),
        ("search to 5 % failing, and the curve", 0.0, True, 22.0 if large else 14.0),
    ):

        def work(value: float = value, curve: bool = curve) -> int:
            return search(CircuitEvaluator(subject, batch), scores, value, curve=curve)

        found.append(Row(f"{name} ({work()} circuits)", *_with_unit(medians(max(1, pairs // 2), work, unit)), limit))
    return found


def _with_unit(measured: tuple[float, float]) -> tuple[float, str, float]:
    return measured[0], "forward", measured[1]


def analysis(checkpoint: Path, tasks: Path) -> Table:
    """CPU seconds of one trained checkpoint's whole analysis, without baselines, a line a task."""
    subject, settings = load_subject(checkpoint), AnalyseParams()
    table = Table(title=f"{checkpoint}: {subject.graph.n_edges} edges, one thread")
    for heading in ("task", "metric", "status", "asked", "kept", "behaviour s", "scores s", "circuit s"):
        table.add_column(heading, justify="left" if heading in ("task", "status") else "right")
    total = 0.0
    for folder in sorted(tasks.iterdir()):
        dataset = read_dataset(folder)
        marks = [time.process_time()]
        batches = tokenize_splits(subject, dataset)
        behaviour = analyse_behaviour(subject, batches, settings)
        marks.append(time.process_time())
        scores = analyse_scores(subject, batches, behaviour, settings)
        marks.append(time.process_time())
        found = analyse_circuit(subject, batches, behaviour, scores, settings)
        marks.append(time.process_time())
        seconds = [f"{end - start:.2f}" for start, end in itertools.pairwise(marks)]
        metric = f"{behaviour['discover'].metric.value:.3f}"
        table.add_row(dataset.task, metric, found.status, str(found.asked), str(found.kept), *seconds)
        total += marks[-1] - marks[0]
    table.caption = f"{total:.1f} s in all; limit 12 s"
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="may be given more than once")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of runs; medians are shown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="a trained checkpoint to analyse whole; needs --tasks")
    parser.add_argument("--tasks", type=Path, help="the folder of its study's data sets, e.g. data/tasks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=120)
    if options.checkpoint:
        console.print(analysis(options.checkpoint, options.tasks))
        return
    for shape in options.shape or ["70m"]:
        table = Table(title=f"GPT-NeoX at {shape} shape, {PAIRS} pairs of {TOKENS} tokens, float32, one thread")
        for heading in ("work", "seconds", "ratio", "limit", ""):
            table.add_column(heading, justify="left" if heading in ("work", "") else "right")
        for row in rows(shape, options.pairs):
            verdict = "" if row.limit is None else ("ok" if row.ratio <= 1.03 * row.limit else "over")
            limit = "" if row.limit is None else f"{row.limit:.2f}"
            table.add_row(row.work, f"{row.seconds:.2f}", f"{row.ratio:.2f} {row.unit}", limit, verdict)
        console.print(table)


if __name__ == "__main__":
    main()
