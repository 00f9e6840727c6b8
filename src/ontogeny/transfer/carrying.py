"""Transfer faithfulness: a circuit in the model of another checkpoint or seed (METHODS 8.2; arXiv 2606.06267).

Two circuits may differ in every edge and still be one mechanism: then each does the task in the other's model. The null
is the same circuit with its heads shuffled within layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ontogeny.core.circuit import Circuit, jaccard_edges
from ontogeny.core.faithfulness import Ends
from ontogeny.core.results import Faithfulness
from ontogeny.core.transfer import HeadsOf
from ontogeny.patching import CircuitEvaluator
from ontogeny.transfer.matching import Names, random_names, rename_heads


@dataclass(frozen=True)
class CarriedCircuit:
    """A circuit, and where it was found."""

    member: str
    step: int
    circuit: Circuit


@dataclass(frozen=True)
class Carried:
    """Such a circuit in the target's model."""

    member: str
    step: int
    heads: HeadsOf
    kept: int
    faithfulness: Faithfulness
    jaccard: float
    """Of its edges with the target's own circuit; NaN where there is none."""


def carry(
    evaluator: CircuitEvaluator, sources: Sequence[CarriedCircuit], own: Circuit | None, draws: int, seed: int
) -> tuple[Carried, ...]:
    """Circuits of the target's own member, each as it is and, as the mean of `draws`, with its heads shuffled."""
    target = _Target(evaluator, own)
    found: list[Carried] = []
    for source in sources:
        found.append(target.carried(source, "own", [source.circuit]))
        found.append(target.shuffled(source, draws, seed))
    return tuple(found)


def carry_seeds(
    evaluator: CircuitEvaluator,
    sources: Sequence[CarriedCircuit],
    names: Mapping[str, Names],
    own: Circuit | None,
    draws: int,
    seed: int,
) -> tuple[Carried, ...]:
    """Circuits of other seeds: under the same indices, matched, and randomly matched.

    Args:
        evaluator: of the target, on held-out prompts.
        sources: circuits of other members of the same shape.
        names: member -> the matching of its heads with the target's.
        own: the circuit that was found at the target.
        draws: random matchings.
        seed: of these.
    """
    target = _Target(evaluator, own)
    found: list[Carried] = []
    for source in sources:
        found.append(target.carried(source, "unmatched", [source.circuit]))
        found.append(target.carried(source, "matched", [rename_heads(source.circuit, names[source.member])]))
        found.append(target.shuffled(source, draws, seed))
    return tuple(found)


@dataclass(frozen=True)
class _Target:
    evaluator: CircuitEvaluator
    own: Circuit | None

    def carried(self, source: CarriedCircuit, heads: HeadsOf, circuits: Sequence[Circuit]) -> Carried:
        """Mean over `circuits`, in which the heads have other names."""
        metric = float(self.evaluator.evaluate_all(circuits).double().mean())
        clean, corrupted = (float(x.double().mean()) for x in (self.evaluator.clean, self.evaluator.corrupted))
        alike = [math.nan if self.own is None else jaccard_edges(circuit, self.own) for circuit in circuits]
        value = Ends(clean, corrupted).faithfulness(metric)
        return Carried(source.member, source.step, heads, source.circuit.n_edges, value, sum(alike) / len(alike))

    def shuffled(self, source: CarriedCircuit, draws: int, seed: int) -> Carried:
        generator = torch.Generator().manual_seed(seed)
        graph = source.circuit.graph
        drawn = [rename_heads(source.circuit, random_names(graph, generator)) for _ in range(draws)]
        return self.carried(source, "random", drawn)
