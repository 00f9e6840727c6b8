"""How much a checkpoint is to compute: passes of one prompt through the model, whatever the machine.

A circuit counts as one pass, as a backward pass does. Tasks are taken as learnt at every checkpoint and circuits as
found: a checkpoint that has learnt nothing takes its behaviour alone. What heads do is counted as passes of prompts of
`PROMPT` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ontogeny.core.faithfulness import search_cap
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import SPLITS
from ontogeny.core.results import IOI
from ontogeny.core.roles import ROLES_OF_TASKS
from ontogeny.core.schedule import Analysis
from ontogeny.core.tuning import WITH_STEPS, ScoreSetting
from ontogeny.models.weights import Architecture
from ontogeny.params import AnalyseParams, SearchParams, TransferParams, TuneParams
from ontogeny.tuning.cost import passes

EXACT = ScoreSetting("exact", "", 0)
PROMPT = 16
"""Tokens of a prompt, about."""
SCANNED = 0.15
"""Share of the sizes that a scan looks at before it has found a circuit: on the ladder 8 to 20 %."""
PATCHING = 100
"""Passes a prompt of the three receiver sets of the IOI algorithm: 45 to 98 were measured (docs/algorithm.md)."""
EXPONENTIAL = 30
"""Operations that an exponential and what goes with it count as, in the divergences of copy suppression."""


@dataclass(frozen=True)
class Effort:
    """Of one checkpoint, or of many."""

    forward: int = 0
    """Passes of one prompt, backward ones too, but for those of circuits."""
    circuits: int = 0
    """Prompts on which a circuit is evaluated."""
    extra: float = 0.0
    """Floating-point operations beside these, of copy suppression."""

    def __add__(self, other: Effort) -> Effort:
        return Effort(self.forward + other.forward, self.circuits + other.circuits, self.extra + other.extra)

    def times(self, count: int) -> Effort:
        """Of `count` equal checkpoints."""
        return Effort(self.forward * count, self.circuits * count, self.extra * count)

    @property
    def passes(self) -> int:
        """All together."""
        return self.forward + self.circuits


def checkpoint_effort(
    architecture: Architecture,
    examples: Mapping[str, int],
    settings: AnalyseParams,
    analyses: Sequence[Analysis],
    *,
    baselines: bool,
    text: bool,
) -> Effort:
    """Of one checkpoint.

    Args:
        architecture: of its model.
        examples: task -> prompt pairs in each of its splits.
        settings: section `analyse`.
        analyses: what it is analysed for.
        baselines: whether random circuits and complements stand beside the curve.
        text: whether there is text for copy suppression.
    """
    total = Effort()
    for task, pairs in examples.items():
        total += Effort(forward=2 * len(SPLITS) * pairs)
        if "circuits" in analyses:
            total += _circuits(architecture.graph, pairs, settings, baselines)
        if "algorithm" in analyses and task == IOI:
            total += Effort(forward=PATCHING * pairs)
    if "algorithm" in analyses:
        total += _roles(architecture, settings, text)
    return total


def circuits_searched(graph: GraphSpec, search: SearchParams) -> int:
    """Circuits that a search looks at: of a scan, the usual share; of a bisection, at most."""
    cap = search_cap(graph.n_edges, search.range)
    if graph.n_edges <= search.scan_up_to:
        return min(cap, max(1, math.ceil(SCANNED * cap)))
    doublings = math.ceil(math.log2(max(cap, 2)))
    return min(cap, 2 * doublings + 2 * search.sustain + 2)


def flops_per_token(architecture: Architecture) -> float:
    """Of one token's forward pass through the blocks: two operations a weight."""
    a = architecture
    attention, hidden = 4 * a.d_model * a.n_heads * a.d_head, (3 if a.gated else 2) * a.d_model * a.d_mlp
    return 2.0 * a.n_layers * (attention + hidden)


def _circuits(graph: GraphSpec, pairs: int, settings: AnalyseParams, baselines: bool) -> Effort:
    """Scores, their resamples, the search with its curve, the circuit on `held_out`, and baselines."""
    attribution, search = settings.attribution, settings.search
    scoring = passes(ScoreSetting(attribution.method, attribution.rule, attribution.steps), graph)
    once = scoring.forward + scoring.backward
    draws = settings.baselines.random_draws
    curve = len(search.fractions) + (len(settings.baselines.fractions) * (1 + draws) if baselines else 0)
    circuits = circuits_searched(graph, search) + curve + draws + 1
    return Effort(forward=pairs * (once * (2 if settings.stability.enabled else 1) + 4), circuits=pairs * circuits)


def _roles(architecture: Architecture, settings: AnalyseParams, text: bool) -> Effort:
    """Attention roles on their sequences; copy suppression: three runs of the text, and each head's divergences."""
    a, attention, copying = architecture, settings.roles.attention, settings.roles.copy_suppression.tokens
    tokens = attention.sequences * 2 * min(attention.longest, a.context // 2)
    if not text:
        return Effort(forward=math.ceil(tokens / PROMPT))
    heads = a.n_layers * a.n_heads
    extra = float(copying * a.vocab * heads * (2 * a.d_head + EXPONENTIAL))
    return Effort(forward=math.ceil((tokens + 3 * copying) / PROMPT), extra=extra)


def transfer_effort(examples: Mapping[str, int], anchors: int, mates: int, settings: TransferParams) -> Effort:
    """Of all anchors of a member, at most.

    The circuits of its anchors, those that `mates` other seeds have at the same step, and its role heads ablated.
    """
    draws, total = settings.random_matchings, Effort()
    carried = anchors * (1 + draws) + mates * (2 + draws)
    for task, pairs in examples.items():
        ablated = len(ROLES_OF_TASKS.get(task, ())) * (1 + settings.ablated_sets)
        circuits = anchors * carried + min(anchors, settings.ablated_anchors) * ablated
        total += Effort(forward=2 * pairs * anchors, circuits=pairs * circuits)
    return total


def tuning_effort(graph: GraphSpec, examples: Mapping[str, int], settings: AnalyseParams, tune: TuneParams) -> Effort:
    """Of one checkpoint that settings are tried on: every scoring, the sizes it is asked for, and `exact` scores."""
    space, total = tune.space, Effort()
    scorings = {
        ScoreSetting(method, rule if path else "", steps if path else 0)
        for method in space.method
        for rule in space.rule
        for steps in space.steps
        for path in [method in WITH_STEPS]
    }
    for pairs in examples.values():
        for scoring in scorings:
            once = passes(scoring, graph)
            for share in space.examples:
                total += Effort(forward=math.ceil(share * pairs) * (once.forward + once.backward))
            circuits = circuits_searched(graph, settings.search) + len(space.threshold)
            total += Effort(circuits=pairs * circuits * len(space.examples) * len(space.selection))
        if graph.n_edges <= tune.truth.up_to_edges:
            total += Effort(forward=min(tune.truth.examples, pairs) * passes(EXACT, graph).forward)
    return total
