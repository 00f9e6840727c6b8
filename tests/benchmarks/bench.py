"""`make bench`: what the engine costs, as ratios to what it cannot do without, in one process.

    forward   a Hugging Face forward pass over the clean prompts, answers' logits at the read position only
    floor     a corrupted forward pass, and m forward + activation-backward passes, unembedding as above

Work: GPT-NeoX with random weights at a Pythia shape, 70 pairs of 16 tokens, float32, one thread. Random weights make no
circuit faithful, so that the search is driven by a given predicate ("every size fails", "every size passes"); the last
rows search for real, on a small model that is trained first. Seconds are those of the CPU, so that other work on the
machine counts only through shared caches and cores: each ratio is the median over alternating pairs of runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from ontogeny.analysis import (
    Batches,
    analyse_behaviour,
    analyse_circuit,
    analyse_scores,
    analyse_stability,
    search_circuit,
    tokenize_splits,
)
from ontogeny.attribution import score_edges
from ontogeny.attribution.base import pairs_at_once
from ontogeny.core.behaviour import metric_values
from ontogeny.core.circuit import Circuit, EdgeScores, rank_edges
from ontogeny.core.faithfulness import Ends, Sizes, fraction_sizes, search_sizes
from ontogeny.core.pairs import PairBatch
from ontogeny.models.ladder import train_member
from ontogeny.models.subject import Subject, load_subject, subject_of
from ontogeny.params import AnalyseParams, AttributionParams, CheckpointsParams, CorpusParams, ScaleParams, SearchParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.records.datasets import read_dataset
from ontogeny.tasks import get_task, task_names
from ontogeny.tasks.corpus import build_corpus

SHAPES = {
    "14m": (6, 128, 4),
    "31m": (6, 256, 8),
    "70m": (6, 512, 8),
    "160m": (12, 768, 12),
    "410m": (24, 1024, 16),
}
GROWTH = {"14m": 70, "31m": 70, "70m": 70, "160m": 70, "410m": 14}
"""Prompt pairs of the growth rows: fewer at 410m, which would take an hour otherwise."""
VOCAB, PAIRS, TOKENS, STEPS = 50304, 70, 16, 5
TOLERANCE = 1.03
"""A ratio passes if its median is within its limit by this much."""
SCALE = ScaleParams(layers=4, heads=4, d_model=64)
TRAINING = CheckpointsParams(
    scales={"bench": SCALE}, steps=300, first_steps=(0,), per_octave=1, even_from=1.0, even_count=0
)
QUOTED = {
    ("attribution", "70m"): "173.8 s / 26.0 s / 96.3 s",
    ("attribution", "160m"): "728.5 s / 114.9 s / -",
    ("prefix", "160m"): "728.5 s / 114.9 s / -",
    ("circuit", "70m"): "14.7 s / 4.9 s / 14.8 s",
    ("circuit", "160m"): "67.7 s / 22.1 s / 62.6 s",
    ("failing", "70m"): "- / 33 s / 58-73 s",
    ("failing", "160m"): "~745 s / 145 s / -",
    ("passing", "70m"): "122.9 s / 36 s / -",
}
"""Seconds of EAP-IG's library, of the same without its slowest line and weight gradients, and of auto-circuit: measured
once on another machine for the project's plan, quoted here, not measured again."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    seconds: float
    unit: str
    ratio: float
    limit: float | None
    key: str = ""
    shape: str = ""
    megabytes: float | None = None
    """For a row about memory, which has no seconds."""

    @property
    def amount(self) -> str:
        """Seconds or megabytes."""
        return f"{self.seconds:.2f} s" if self.megabytes is None else f"{self.megabytes:.0f} MB"

    @property
    def verdict(self) -> str:
        """Whether the ratio is within its limit."""
        return "" if self.limit is None else "ok" if self.ratio <= TOLERANCE * self.limit else "OVER"


@dataclass(frozen=True)
class Case:
    """A model of random weights under measurement."""

    shape: str
    model: Any
    subject: Subject
    repetitions: int
    """Alternating pairs of runs behind each median."""

    @property
    def large(self) -> bool:
        """Whether the limits of 160m hold."""
        return self.subject.graph.n_layers > 6


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


def prompts(first: int, pairs: int = PAIRS) -> PairBatch:
    """Pairs that agree before token `first` and differ from there on at every second token."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(1, VOCAB, (pairs, TOKENS), generator=generator)
    corrupted = clean.clone()
    corrupted[:, first::2] = torch.randint(1, VOCAB, corrupted[:, first::2].shape, generator=generator)
    ids = torch.randint(1, VOCAB, (pairs, 2), generator=generator)
    signs = torch.tensor([[1.0, -1.0]], dtype=torch.float64).repeat(pairs, 1)
    return PairBatch(clean, corrupted, torch.full((pairs,), TOKENS), ids, signs, "logit_diff")


def forward(model: Any, batch: PairBatch) -> None:
    """One Hugging Face forward pass, the answers' logits at the read position only."""
    with torch.no_grad():
        _metric(model, model.gpt_neox(batch.clean, use_cache=False).last_hidden_state, batch)


def floor(model: Any, batch: PairBatch) -> None:
    """What EAP-IG cannot do without."""
    embed = model.gpt_neox.embed_in
    with torch.no_grad():
        clean, corrupted = embed(batch.clean), embed(batch.corrupted)
        model.gpt_neox(inputs_embeds=corrupted, use_cache=False)
    for k in range(1, STEPS + 1):
        here = torch.lerp(corrupted, clean, k / STEPS).requires_grad_(True)
        last = model.gpt_neox(inputs_embeds=here, use_cache=False).last_hidden_state
        torch.autograd.grad(_metric(model, last, batch).sum(), here)


def _metric(model: Any, hidden: torch.Tensor, batch: PairBatch) -> torch.Tensor:
    """The metric of each example; of a logit difference only the answers' logits are computed."""
    last, unembedding = hidden[torch.arange(len(batch)), batch.lengths - 1], model.get_output_embeddings()
    if batch.metric == "prob_diff":
        return metric_values(unembedding(last), batch)
    answers = (unembedding.weight[batch.answer_ids] @ last[:, :, None]).squeeze(-1)
    return (answers * batch.answer_weights.to(answers)).sum(dim=1)


def medians(repetitions: int, ours: Callable[[], object], unit: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of ours and median ratio to the unit, over alternating pairs."""
    ours(), unit()
    seconds, ratios = [], []
    for _ in range(repetitions):
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


def _attribution(case: Case, key: str, work: str, batch: PairBatch, limit: float) -> Row:
    seconds, ratio = medians(
        case.repetitions,
        lambda: score_edges(case.subject, batch, AttributionParams(steps=STEPS)),
        lambda: floor(case.model, batch),
    )
    return Row(work, seconds, "floor", ratio, limit, key, case.shape)


def attribution(case: Case) -> Row:
    """EAP-IG where clean and corrupted differ from the first token on."""
    limit = 1.1 if case.large else 1.0
    return _attribution(case, "attribution", f"EAP-IG m = {STEPS}, differing from token 0", prompts(0), limit)


def prefix(case: Case) -> Row:
    """The same where they first differ at token 10 of 16, as IOI's do."""
    return _attribution(case, "prefix", f"EAP-IG m = {STEPS}, differing from token 10 of 16", prompts(10), 0.55)


def growth(case: Case) -> Row:
    """EAP-IG over its floor at every size of model."""
    pairs = GROWTH[case.shape]
    return _attribution(case, "growth", f"growth: EAP-IG m = {STEPS}, {pairs} pairs", prompts(0, pairs), 1.2)


def memory(case: Case) -> Row:
    """Tensors alive at one time beside the weights, in units of what all writers write on all pairs."""
    batch, settings = prompts(0), AttributionParams(steps=STEPS)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        score_edges(case.subject, batch, settings)
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak = max(itertools.accumulate(change for _, change in changes))
    written = PAIRS * TOKENS * case.subject.graph.n_writers * case.subject.architecture.d_model * 4
    at_once = pairs_at_once(case.subject, batch, settings)
    work = f"memory of EAP-IG m = {STEPS}, {at_once} of {PAIRS} pairs at once"
    return Row(work, math.nan, "writers", peak / written, 1.5, "memory", case.shape, peak / 1e6)


def circuit(case: Case) -> Row:
    """One circuit of 5 % of the edges, with the clean and the corrupted run already made."""
    batch, scores = prompts(0), random_scores(case.subject)
    chosen = rank_edges(scores).circuit(round(0.05 * case.subject.graph.n_edges))
    evaluator = CircuitEvaluator(case.subject, batch)

    def evaluate() -> None:
        evaluator.forget()
        evaluator.evaluate(chosen)

    seconds, ratio = medians(case.repetitions, evaluate, lambda: forward(case.model, batch))
    return Row("circuit of 5 % of the edges", seconds, "forward", ratio, 1.15, "circuit", case.shape)


def _search(case: Case, key: str, work: str, limit: float, value: float, *, curve: bool = False) -> Row:
    """A whole search: with the clean and the corrupted run that it begins with."""
    batch, scores = prompts(0), random_scores(case.subject)

    def whole() -> int:
        return search(CircuitEvaluator(case.subject, batch), scores, value, curve=curve)

    found = f"{work} ({whole()} circuits)"
    seconds, ratio = medians(case.repetitions, whole, lambda: forward(case.model, batch))
    return Row(found, seconds, "forward", ratio, limit, key, case.shape)


def failing(case: Case) -> Row:
    """A search that looks at every size it can."""
    return _search(case, "failing", "search to 5 %, every size failing", 11.0 if case.large else 6.0, 0.0)


def passing(case: Case) -> Row:
    """A search that is content at once."""
    return _search(case, "passing", "search to 5 %, every size passing", 4.0, 1.0)


def curve(case: Case) -> Row:
    """The failing search, and the curve at ten fractions up to 100 %."""
    limit = 22.0 if case.large else 14.0
    return _search(case, "curve", "search to 5 % failing, and the curve", limit, 0.0, curve=True)


ROWS: dict[str, Callable[[Case], Row]] = {
    "attribution": attribution,
    "prefix": prefix,
    "circuit": circuit,
    "failing": failing,
    "passing": passing,
    "curve": curve,
    "memory": memory,
    "growth": growth,
}
DEFAULT = {"14m": ["growth"], "31m": ["growth"], "70m": list(ROWS), "160m": list(ROWS), "410m": ["growth"]}
"""What is measured at each shape unless rows are named."""


def trained(folder: Path) -> Path:
    """A checkpoint of the ladder, trained here for half a minute: three of the four tasks are learnt by then."""
    build_corpus(CorpusParams(train_tokens=600_000, held_out_tokens=1_000), folder / "corpus")
    train_member(SCALE, TRAINING, folder / "corpus", folder / "member", folder / "state", 0, "cpu", lambda *_: None)
    return folder / "member" / f"step{TRAINING.steps}"


def real(checkpoint: Path, batches: dict[str, Batches], repetitions: int) -> Iterator[Row]:
    """Attribution and the real search on a trained checkpoint, a task at a time; tasks not learnt are left out."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval().requires_grad_(False)
    subject, settings = load_subject(checkpoint), AnalyseParams()
    for task, splits in batches.items():
        behaviour = analyse_behaviour(subject, splits, settings)
        scores = analyse_scores(subject, splits, behaviour, settings)
        if scores is None:
            continue
        batch = splits["discover"]
        seconds, ratio = medians(
            repetitions,
            lambda b=batch: score_edges(subject, b, settings.attribution),
            lambda b=batch: floor(model, b),
        )
        yield Row(f"{task}: EAP-IG m = {STEPS}", seconds, "floor", ratio, None, "checkpoint", "ladder")

        def look(splits: Batches = splits, behaviour: Any = behaviour, scores: EdgeScores = scores) -> Any:
            return search_circuit(subject, splits, behaviour, scores, settings)

        found = look()
        what = f"{task}: search and curve, {len(found.by_size)} circuits, {found.result.status}"
        seconds, ratio = medians(repetitions, look, lambda b=batch: forward(model, b))
        yield Row(what, seconds, "forward", ratio, None, "checkpoint", "ladder")


def checkpoint_rows(repetitions: int, checkpoint: Path | None, tasks: Path | None) -> list[Row]:
    """The rows of a trained checkpoint: of the one that is named, or of one trained here."""
    with tempfile.TemporaryDirectory() as folder:
        place = checkpoint or trained(Path(folder))
        return list(real(place, read_batches(place, tasks), repetitions))


def read_batches(checkpoint: Path, tasks: Path | None) -> dict[str, Batches]:
    """The data sets in `tasks`, or, if None, all tasks made with the checkpoint's tokenizer."""
    subject = load_subject(checkpoint)
    if tasks is not None:
        datasets = [read_dataset(folder) for folder in sorted(tasks.iterdir()) if folder.is_dir()]
    else:
        assert subject.tokenizer is not None
        datasets = [get_task(name).generate(subject.tokenizer) for name in task_names()]
    return {dataset.task: tokenize_splits(subject, dataset) for dataset in datasets}


def analysis(checkpoint: Path, tasks: Path | None) -> Table:
    """CPU seconds of one trained checkpoint's analyses, without baselines, a line a task."""
    subject, settings = load_subject(checkpoint), AnalyseParams()
    table = Table(title=f"{checkpoint}: {subject.graph.n_edges} edges, one thread")
    for heading in ("task", "metric", "status", "asked", "kept", "behaviour", "scores", "circuit", "stability"):
        table.add_column(heading, justify="left" if heading in ("task", "status") else "right")
    total = stability = 0.0
    for task, batches in read_batches(checkpoint, tasks).items():
        marks = [time.process_time()]
        behaviour = analyse_behaviour(subject, batches, settings)
        marks.append(time.process_time())
        scores = analyse_scores(subject, batches, behaviour, settings)
        marks.append(time.process_time())
        if scores is None:
            found, search_ = analyse_circuit(subject, batches, behaviour, scores, settings), None
        else:
            search_ = search_circuit(subject, batches, behaviour, scores, settings)
            found = search_.result
        marks.append(time.process_time())
        analyse_stability(subject, batches, scores, found, settings, search=search_)
        marks.append(time.process_time())
        seconds = [f"{end - start:.2f} s" for start, end in itertools.pairwise(marks)]
        metric = f"{behaviour['discover'].metric.value:.3f}"
        table.add_row(task, metric, found.status, str(found.asked), str(found.kept), *seconds)
        total += marks[-1] - marks[0]
        stability += marks[-1] - marks[-2]
    table.caption = f"{total:.1f} s in all, {stability / total:.0%} of it for stability; limit 12 s"
    return table


def measure(shape: str, rows: Iterable[str], repetitions: int) -> Iterator[Row]:
    """The rows of one shape, each as soon as it is measured."""
    model = neox(shape)
    case = Case(shape, model, subject_of(model), repetitions)
    for name in rows:
        yield ROWS[name](case)


def report(rows: Iterable[Row]) -> Table:
    """The rows side by side."""
    title = f"GPT-NeoX, random weights, {PAIRS} pairs of {TOKENS} tokens, float32, one thread (ladder: a trained model)"
    table = Table(title=title, caption="peers: EAP-IG library / the same made faster / auto-circuit; quoted, not run")
    for heading in ("shape", "work", "ours", "ratio", "limit", "", "peers"):
        table.add_column(heading, justify="right" if heading in ("ours", "ratio", "limit") else "left")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        quoted = QUOTED.get((row.key, row.shape), "")
        table.add_row(row.shape, row.work, row.amount, f"{row.ratio:.2f} {row.unit}", limit, row.verdict, quoted)
    return table


def main() -> None:
    """Print the table; each row is shown as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=[*SHAPES, "ladder"], help="default: all; may be repeated")
    parser.add_argument("--rows", action="append", choices=list(ROWS), help="default: those with limits; repeatable")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of runs behind each median; 5 or more")
    parser.add_argument(
        "--checkpoint", type=Path, help="a trained checkpoint for the ladder's rows; default: train one"
    )
    parser.add_argument("--tasks", type=Path, help="its data sets, e.g. data/tasks; default: made with its tokenizer")
    parser.add_argument("--analysis", action="store_true", help="only the seconds of --checkpoint's whole analysis")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=150)
    if options.analysis:
        if options.checkpoint is None:
            parser.error("--analysis needs --checkpoint")
        console.print(analysis(options.checkpoint, options.tasks))
        return
    found: list[Row] = []
    for shape in options.shape or [*SHAPES, "ladder"]:
        if shape == "ladder":
            rows: Iterable[Row] = checkpoint_rows(options.pairs, options.checkpoint, options.tasks)
        else:
            rows = measure(shape, options.rows or DEFAULT[shape], options.pairs)
        for row in rows:
            found.append(row)
            console.print(
                f"{shape} {row.work}: {row.amount}, {row.ratio:.2f} {row.unit} {row.verdict}", highlight=False
            )
    console.print(report(found))


if __name__ == "__main__":
    main()
