"""The share of an effect that comes from the heads with the right role, and its null (METHODS 7.3-7.7).

    metric = 100 * sum of |e| over the set / sum of |e| over all heads

A set is chosen by role and by effect. The null keeps the effects and gives the roles to other heads: those of a head
move together to another head of its layer. So it says what a set of this size, chosen by the same effects, would get.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ontogeny.core.algorithm import AlgorithmMetric, MetricName, PathEffects
from ontogeny.core.circuit import Circuit
from ontogeny.core.roles import Head, HeadScores
from ontogeny.params import AlgorithmParams
from ontogeny.patching.path_patching import PathPatcher, head_effects

HeadMask = Bool[Tensor, "*draws layers heads"]
COT_SUPPRESSION = -0.01
"""Option `cot` measures copy suppression only of heads with e below this."""
Choose = Callable[[tuple[HeadMask, ...], HeadScores], HeadMask]
"""From who holds each of some roles, and the effects, to the heads that count."""


@dataclass(frozen=True)
class Candidates:
    """How the set of a metric comes about."""

    roles: tuple[HeadMask, ...]
    """Who holds each role that the set is made of."""
    choose: Choose


def path_effects(patcher: PathPatcher, receivers: tuple[int, ...]) -> PathEffects:
    """E of every head into these receivers, with MLPs recomputed and frozen."""
    recomputed, frozen = (
        head_effects(patcher, patcher.patch(receivers, freeze_mlps=freeze).metric) for freeze in (False, True)
    )
    return PathEffects(tuple(patcher.graph.reader_names[v] for v in receivers), recomputed, frozen)


def holders_that_help(effect: float) -> Choose:
    """Holders of any of the roles whose effect is below `effect`."""

    def choose(roles: tuple[HeadMask, ...], effects: HeadScores) -> HeadMask:
        return torch.stack(roles).any(dim=0) & (effects < effect)

    return choose


def movers_and_suppressors(roles: tuple[HeadMask, ...], effects: HeadScores) -> HeadMask:
    """Of name movers, their negatives and copy suppressors the paper's set: movers that help, all suppressors."""
    movers, _, suppressors = roles
    return (movers & (effects < 0)) | suppressors


def movers_of_either_sign(roles: tuple[HeadMask, ...], effects: HeadScores) -> HeadMask:
    """Of the same the set of the paper's code (METHODS 7.3, option `cot`): negative name movers belong to it, and
    suppressors only if they help.
    """
    movers, negative, suppressors = roles
    return (movers & (effects < 0)) | (negative & (effects != 0)) | (suppressors & (effects < COT_SUPPRESSION))


def measure(
    name: MetricName,
    effects: PathEffects,
    candidates: Candidates,
    receivers: tuple[Head, ...],
    circuit: Circuit | None,
    settings: AlgorithmParams,
) -> AlgorithmMetric:
    """One metric with both denominators and its null.

    `value_frozen` keeps the set, which the effects with MLPs recomputed chose.
    """
    effect = effects.effect.double()
    chosen = candidates.choose(candidates.roles, effect)
    everyone = float(effect.abs().sum())
    if not everyone > 0:
        where = ", ".join(effects.receivers)
        return undefined_metric(name, f"No head has any effect on {where}.", receivers)
    numerator = float(effect.abs()[chosen].sum())
    inside = torch.zeros_like(chosen) if circuit is None else heads_of(circuit)
    null = _null(candidates, effect, settings)
    return AlgorithmMetric(
        name=name,
        status="measured",
        reason="",
        value=100.0 * numerator / everyone,
        value_frozen=_share(effects.frozen.double(), chosen),
        value_in_circuit=_share(effect * inside, chosen),
        numerator=numerator,
        all_heads=everyone,
        circuit_heads=math.nan if circuit is None else float(effect.abs()[inside].sum()),
        heads=tuple((layer, head) for layer, head in chosen.nonzero().tolist()),
        receivers=receivers,
        null_mean=float(null.mean()),
        null_p95=float(null.quantile(0.95)),
    )


def undefined_metric(name: MetricName, reason: str, receivers: tuple[Head, ...] = ()) -> AlgorithmMetric:
    """A metric that cannot be measured here, and why."""
    nan = math.nan
    return AlgorithmMetric(name, "undefined", reason, nan, nan, nan, nan, nan, nan, (), receivers, nan, nan)


def heads_of(circuit: Circuit) -> Bool[Tensor, "layers heads"]:
    """Which heads are nodes of a circuit."""
    graph = circuit.graph
    writers = circuit.nodes[1:-1].view(graph.n_layers, graph.n_heads + 1)
    return writers[:, :-1]


def permute_within_layers(
    roles: tuple[HeadMask, ...], draws: int, generator: torch.Generator
) -> tuple[Bool[Tensor, "draws layers heads"], ...]:
    """The roles given to other heads of the same layer; all roles of a head move together."""
    order = torch.rand(draws, *roles[0].shape, generator=generator).argsort(dim=-1)
    return tuple(mask.expand(draws, -1, -1).gather(2, order) for mask in roles)


def _null(candidates: Candidates, effect: HeadScores, settings: AlgorithmParams) -> Tensor:
    """The metric of each draw, per cent."""
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = permute_within_layers(candidates.roles, settings.null_draws, generator)
    chosen = candidates.choose(drawn, effect)
    return 100.0 * (chosen * effect.abs()).sum(dim=(1, 2)) / effect.abs().sum()


def _share(effect: HeadScores, chosen: HeadMask) -> float:
    """Per cent; NaN if there is no effect at all."""
    everyone = float(effect.abs().sum())
    return 100.0 * float(effect.abs()[chosen].sum()) / everyone if everyone > 0 else math.nan
