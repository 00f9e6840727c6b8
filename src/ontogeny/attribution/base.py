"""What an attribution method is, and the list of those there are (METHODS 3.4).

A method gives one score an edge *and example*; `score_edges` takes the mean over examples in float64. So no score
depends on batch size or on the order of the pairs beyond rounding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.attribution.path import bytes_per_pair
from ontogeny.core.circuit import EdgeScores
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PairBatch
from ontogeny.models.memory import budget_on, within_memory
from ontogeny.models.subject import Subject, check_batch

logger = logging.getLogger(__name__)
BOUND = 1.5
"""Most memory that attribution takes beside the weights, in units of what all writers write on the whole batch ..."""
UNBOUNDED = 2**26
"""... unless that is less than this many bytes: small models would lose more time to small parts than they save."""


class AttributionSettings(Protocol):
    """How edges are scored; `params.AttributionParams` is one."""

    @property
    def method(self) -> str:
        """A key of `METHODS`."""
        ...

    @property
    def steps(self) -> int:
        """m: gradients averaged by `eap_ig`."""
        ...

    @property
    def rule(self) -> str:
        """Where on the path they are taken: right, left or midpoint."""
        ...


ExampleScores = Float[Tensor, "pairs writers readers"]
Score = Callable[[Subject, PairBatch, AttributionSettings, bool], Tensor]
"""``score(subject, batch, settings, per_example)``: scores of each pair, or their sum over pairs."""


@dataclass(frozen=True)
class Attribution:
    """A method: `score` gives the scores of a batch that fits into memory, `label` says what was computed."""

    name: str
    score: Score
    """``[pairs, writers, readers]``, or ``[writers, readers]``."""
    label: Callable[[AttributionSettings], str]


METHODS: dict[str, Attribution] = {}


def register(method: Attribution) -> Attribution:
    """Add a method; a name is taken once."""
    if method.name in METHODS:
        raise ValueError(f"There is an attribution method {method.name!r} already.")
    METHODS[method.name] = method
    return method


def score_edges(
    subject: Subject, batch: PairBatch, settings: AttributionSettings, *, batch_pairs: int | None = None
) -> EdgeScores:
    """Scores of all edges: > 0 means that the edge helps (METHODS 3.3).

    Args:
        subject: the model.
        batch: the prompt pairs of one split.
        settings: method, steps, rule.
        batch_pairs: pairs worked on at once; None: as `pairs_at_once` says.
    """
    method = _method(settings)
    total = torch.zeros(subject.graph.n_writers, subject.graph.n_readers, dtype=torch.float64)
    for found in in_parts(method.score, subject, batch, settings, False, batch_pairs):
        total += found.double()
    values = (total / len(batch)).to(torch.float64 if subject.dtype == torch.float64 else torch.float32)
    return EdgeScores(subject.graph, values, method.label(settings))


def score_edges_by_example(
    subject: Subject, batch: PairBatch, settings: AttributionSettings, *, batch_pairs: int | None = None
) -> ExampleScores:
    """The scores whose mean over examples `score_edges` gives: for the bootstrap, in memory only."""
    method = _method(settings)
    return torch.cat(list(in_parts(method.score, subject, batch, settings, True, batch_pairs)))


def score_edges_resampled(
    subject: Subject,
    batch: PairBatch,
    settings: AttributionSettings,
    shares: Float[Tensor, "resamples pairs"],
    *,
    batch_pairs: int | None = None,
) -> Float[Tensor, "resamples writers readers"]:
    """Mean scores of resamples of the pairs, float64; scores by example are held for one part of the batch at a time.

    Args:
        subject: the model.
        batch: the prompt pairs of one split.
        settings: method, steps, rule.
        shares: share of each pair in each resample; rows sum to 1.
        batch_pairs: pairs worked on at once; None: as `pairs_at_once` says.
    """
    method, done = _method(settings), 0
    total = torch.zeros(len(shares), subject.graph.n_writers * subject.graph.n_readers, dtype=torch.float64)
    for found in in_parts(method.score, subject, batch, settings, True, batch_pairs):
        total.addmm_(shares[:, done : done + len(found)], found.double().flatten(1))
        done += len(found)
    return total.view(len(shares), subject.graph.n_writers, subject.graph.n_readers)


def _method(settings: AttributionSettings) -> Attribution:
    if settings.method not in METHODS:
        raise ImpossibleRequest(f"No attribution method {settings.method!r}; there are: {', '.join(METHODS)}.")
    return METHODS[settings.method]


def in_parts(
    score: Score,
    subject: Subject,
    batch: PairBatch,
    settings: AttributionSettings,
    per_example: bool,
    batch_pairs: int | None,
) -> Iterator[Tensor]:
    """`score` of parts of `batch_pairs` pairs (None: of `pairs_at_once`), on the CPU.

    A part that does not fit is tried again with half as many pairs, and so are all after it.

    Raises:
        ImpossibleRequest: the batch does not fit the model (`check_batch`), or a single pair does not fit into memory.
    """
    check_batch(subject, batch)
    size, start = min(batch_pairs or pairs_at_once(subject, batch, settings), len(batch)), 0
    while start < len(batch):
        part = batch.take(slice(start, start + size))
        found = within_memory(lambda part=part: score(subject, part, settings, per_example).cpu())  # type: ignore[misc]
        if found is not None:
            start += size
            yield found
        elif size > 1:
            size //= 2
            logger.warning("Out of memory: going on with %d pairs at once.", size)
        else:
            raise ImpossibleRequest(
                f"Out of memory with a single pair of {batch.clean.shape[1]} tokens. Use a smaller model, a device "
                "with more memory, or fewer jobs at once."
            )


def pairs_at_once(subject: Subject, batch: PairBatch, settings: AttributionSettings, budget: int | None = None) -> int:
    """How many pairs of this batch are worked on together.

    As many as keep memory beside the weights within `budget` bytes (None: `budget_on` the device), and within one and a
    half times what all writers write on all pairs (pairs x tokens x F x d_model numbers) wherever that is more than
    `UNBOUNDED`; in even parts.
    """
    tokens, item = batch.clean.shape[1], subject.weights.embed.element_size()
    written = len(batch) * tokens * subject.graph.n_writers * subject.architecture.d_model * item
    allowed = min(budget or budget_on(subject.device), max(UNBOUNDED, int(BOUND * written)))
    most = max(1, allowed // bytes_per_pair(subject.architecture, tokens, max(2, settings.steps), item))
    return math.ceil(len(batch) / math.ceil(len(batch) / most))
