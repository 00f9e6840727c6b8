"""EAP with integrated gradients over activations: each writer layer is moved in turn (Hanna et al. 2024; METHODS 3.4).

For the embedding, for the heads of each block together, and for each MLP: what they write is moved from the corrupted
to the clean value in m steps (the rule's points) while everything downstream is recomputed; the gradients of all
m (2L + 1) passes are averaged and meet the writers' differences, as the EAP-IG library does it. Nothing flows back
through a layer that is moved.
"""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.attribution.eap_ig import path_points
from ontogeny.attribution.path import Outputs, PathRun, contract, no_gradients, path_scores
from ontogeny.core.pairs import PairBatch
from ontogeny.models.backward import trace
from ontogeny.models.forward import Part, Run, embed, run, run_between
from ontogeny.models.readout import readout
from ontogeny.models.subject import Subject, align_pairs

PARTS: tuple[Part, ...] = ("heads", "mlp")


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
    points, weights = path_points(settings.rule, settings.steps), subject.weights
    pairs, read = align_pairs(subject, batch), readout(weights, batch)
    clean, corrupted = (run(weights, embed(weights, tokens), pairs.plan) for tokens in (pairs.clean, pairs.corrupted))
    differences = _outputs(clean).minus(_outputs(corrupted))
    layers = [(layer, part) for layer in range(subject.graph.n_layers) for part in PARTS]
    scores = path_scores(subject, batch, points, per_example)
    for moved in layers:
        sums = no_gradients(weights, len(batch))
        for point in points:
            here = run_between(weights, clean, corrupted, pairs.plan, *moved, point.alpha)
            traced = PathRun([trace(block) for block in here.blocks], here.final)
            sums.add(weights, pairs.plan, read, traced, point.weight, moved)
        scores += contract(subject, differences, sums, per_example)
    return scores.div_(len(layers) + 1)


def _outputs(done: Run) -> Outputs:
    return Outputs(done.embed, tuple(b.heads for b in done.blocks), tuple(b.mlp.out for b in done.blocks))


register(Attribution("eap_ig_activations", _score, lambda s: f"eap_ig_activations-{s.rule}-{s.steps}"))
