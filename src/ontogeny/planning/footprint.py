"""How much memory and disk a study takes at its peak."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ontogeny.attribution.base import BOUND, UNBOUNDED
from ontogeny.core.schedule import Analysis
from ontogeny.models.forward import bytes_of_run
from ontogeny.models.memory import BUDGET
from ontogeny.models.outline import Outline
from ontogeny.models.weights import Architecture
from ontogeny.params import AnalyseParams, TuneParams
from ontogeny.planning.effort import PROMPT
from ontogeny.tuning.cost import KEPT, bench_bytes

ITEM = {"float32": 4, "float64": 8, "bfloat16": 2}
"""Bytes of a number."""
INTERPRETER = 450 * 10**6
"""Bytes of a worker process before it has loaded a model: torch and transformers."""
SLACK = 1.15
"""What allocators keep beside what is asked of them."""
LOADING, LOADING_GATED = 1.25, 1.75
"""Weights in memory while a model is loaded: its own, and copies of the joint projections. Of a block's 12 d_model²
numbers these are 3; where the MLP is gated its inputs too, up to three quarters of a block."""
COPIES = 3
"""Of what is kept of a checkpoint: in the job cache (or the training's folder), in data/, and in DVC's cache."""
RECORD = 15_000
"""Bytes of the record of a task at a checkpoint, beside its scores."""
HEAD = 1000
"""Bytes of what is kept of a head at a checkpoint: its roles and their curves."""
PICTURES = 250_000
"""Bytes of what MLflow keeps of a task at a checkpoint whose circuit is drawn."""


class Memory(NamedTuple):
    """Bytes of one worker at its peak."""

    host: int
    device: int
    """0 where the device is the host."""

    def or_more(self, other: Memory) -> Memory:
        """The larger of both, on either side."""
        return Memory(max(self.host, other.host), max(self.device, other.device))


def worker_memory(
    outline: Outline, pairs: int, settings: AnalyseParams, *, accelerator: bool, circuits: bool = True
) -> Memory:
    """Of the worker that analyses a model.

    The engine folds weights where they lie; only projections that it joins or puts into another order are there twice
    while a model is loaded.

    Args:
        outline: the model.
        pairs: prompt pairs in the largest split.
        settings: section `analyse`.
        accelerator: whether the model is put on a device with memory of its own.
        circuits: whether anything but behaviour is asked for.
    """
    item, a = ITEM[settings.precision], outline.architecture
    weights = outline.parameters * item
    one = bytes_of_run(a, PROMPT, item)
    working = working_memory(a, pairs, settings) if circuits else max(one, min(BUDGET, pairs * one))
    most = int(SLACK * max((LOADING_GATED if a.gated else LOADING) * weights, weights + working))
    return Memory(INTERPRETER + weights, most) if accelerator else Memory(INTERPRETER + most, 0)


def tuning_memory(
    outline: Outline, pairs: int, settings: AnalyseParams, tune: TuneParams, *, accelerator: bool
) -> Memory:
    """Of the worker that tries settings on a model: what it keeps of models, and the scoring of one; else as above.

    Args:
        outline: the model.
        pairs: prompt pairs in the largest split.
        settings: section `analyse`.
        tune: section `tune`.
        accelerator: whether the model is put on a device with memory of its own.
    """
    item, a = ITEM[settings.precision], outline.architecture
    splits = (*tune.space.examples, 1.0, 1.0)
    bench = bench_bytes(a, outline.parameters, item, [(math.ceil(share * pairs), PROMPT) for share in splits])
    kept = max(bench, min(KEPT, len(tune.checkpoints) * bench))
    most = int(SLACK * (kept + working_memory(a, pairs, settings)))
    weights = outline.parameters * item
    return Memory(INTERPRETER + weights, most) if accelerator else Memory(INTERPRETER + most, 0)


def working_memory(architecture: Architecture, pairs: int, settings: AnalyseParams) -> int:
    """Beside the weights: the largest of attribution, resampled scores, and the evaluation of circuits."""
    a, graph, item = architecture, architecture.graph, ITEM[settings.precision]
    written = pairs * PROMPT * graph.n_writers * a.d_model * item
    attribution = min(BUDGET, max(UNBOUNDED, int(BOUND * written)))
    resampled = settings.stability.resamples * graph.n_writers * graph.n_readers * 8
    return max(attribution + resampled, int(1.5 * written))


def record_bytes(architecture: Architecture, tasks: int, analyses: Sequence[Analysis]) -> int:
    """Bytes of what is kept of a checkpoint's analyses, in all copies: scores, how stable they are, roles, pictures."""
    graph, circuits = architecture.graph, "circuits" in analyses
    scores = 2 * 4 * graph.n_writers * graph.n_readers if circuits else 0
    heads = HEAD * graph.n_layers * graph.n_heads if "algorithm" in analyses else 0
    return COPIES * (tasks * (RECORD + scores) + heads) + (tasks * PICTURES if circuits else 0)


def shared_memory(workers: int, each: Iterable[Memory]) -> Memory:
    """Of all workers at once, when the largest models meet."""
    largest = sorted(each, reverse=True)[:workers]
    return Memory(sum(memory.host for memory in largest), max((memory.device for memory in largest), default=0))
