"""The IOI algorithm at one checkpoint: the paper's Figure 4 B, C, D, and self-repair (METHODS 7.3-7.7, 8.5).

direct   B  receiver: the final residual. Set: name movers (copy, and e < 0) and copy-suppression heads.
queries  C  receivers: the queries of all name movers together. Set: S-inhibition heads with e below the limit.
values   D  receivers: the values of C's S-inhibition heads that are not copy-suppression heads. Set: heads with e below
            the limit whose induction or duplicate-token score is above the mean of all heads.

C and D are also told of the heads that inhibit by the token signal (`queries_by_token`, `values_by_token`): METHODS 6.5
has the position signal alone decide, which a model whose text shuffles names has no reason to learn.

Sets and receivers are found anew at every checkpoint. Where a metric has no receivers it is undefined, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from ontogeny.algorithm.metrics import (
    Candidates,
    holders_that_help,
    measure,
    movers_and_suppressors,
    movers_of_either_sign,
    path_effects,
    undefined_metric,
)
from ontogeny.algorithm.self_repair import self_repair
from ontogeny.components import holders
from ontogeny.components.s_inhibition import POSITION, TOKEN, inhibitors, name_movers_at_work
from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult, MetricName, PathEffects
from ontogeny.core.circuit import Circuit
from ontogeny.core.pairs import PairBatch
from ontogeny.core.roles import HeadScores, RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import AnalyseParams, ThresholdParams
from ontogeny.patching.path_patching import PathPatcher, head_readers

Roles = Mapping[str, RoleScores]
CHAINS: tuple[tuple[MetricName, MetricName, str], ...] = (
    ("queries", "values", POSITION),
    ("queries_by_token", "values_by_token", TOKEN),
)
"""C and D, and the signal by which their heads inhibit S."""
DIRECT_SETS = {"paper": movers_and_suppressors, "cot": movers_of_either_sign}


def analyse_algorithm(
    subject: Subject, batch: PairBatch, roles: Roles, circuit: Circuit | None, settings: AnalyseParams
) -> AlgorithmResult:
    """B, C, D with their nulls, all path effects, and self-repair of every role.

    Whether the behaviour is learnt at all is for the caller to say (METHODS 7.7).

    Args:
        subject: the model.
        batch: IOI pairs, the `discover` split.
        roles: scores of every role, by name.
        circuit: the IOI circuit, for the denominator over in-circuit heads; None: there is none.
        settings: sections `roles.thresholds` and `algorithm` matter.
    """
    patcher, thresholds = PathPatcher(subject, batch), settings.roles.thresholds
    clean, corrupted = float(patcher.clean.double().mean()), float(patcher.corrupted.double().mean())
    if not math.isfinite(clean - corrupted) or clean == corrupted:
        reason = f"The metric is {clean:.4g} on clean and {corrupted:.4g} on corrupted prompts: effects have no scale."
        return AlgorithmResult("undefined", reason, {}, {}, ())
    effects: dict[str, PathEffects] = {"direct": path_effects(patcher, (patcher.graph.logits_reader,))}
    metrics: dict[str, AlgorithmMetric] = {"direct": _direct(effects["direct"], roles, circuit, settings)}
    for queries, values, signal in CHAINS:
        metrics[queries] = _queries(queries, signal, patcher, effects, roles, circuit, settings)
        metrics[values] = _values(values, metrics[queries], patcher, effects, roles, circuit, settings)
    repair = tuple(
        self_repair(patcher, scores, thresholds, settings.algorithm.leading_heads) for scores in roles.values()
    )
    return AlgorithmResult("measured", "", effects, metrics, repair, added_to_s(patcher, subject, batch))


def added_to_s(patcher: PathPatcher, subject: Subject, batch: PairBatch) -> HeadScores:
    """What each head adds directly to the logit of S, clean minus corrupted, logits, mean over prompts (claim C10).

    Above the vocabulary's mean logit, as what is added to all logits alike is nothing; through the final norm at its
    clean scale. On the corrupted prompts S comes once, so that below 0 means: lowered because it came twice.
    """
    s = batch.answer_ids.gather(1, batch.answer_weights.argmin(dim=1, keepdim=True))[:, 0]
    unembed = subject.weights.unembed
    direction = unembed.T[s.to(unembed.device)] - unembed.mean(dim=1)
    by_writer = patcher.direct_effects(direction).double().mean(dim=1)
    return by_writer[1:].view(patcher.graph.n_layers, -1)[:, :-1].contiguous()


def _direct(effects: PathEffects, roles: Roles, circuit: Circuit | None, settings: AnalyseParams) -> AlgorithmMetric:
    needed = ("name_mover", "negative_name_mover", "copy_suppression")
    missing = _missing(roles, *needed)
    if missing:
        return undefined_metric("direct", missing)
    masks = tuple(_mask(roles[name], settings.roles.thresholds) for name in needed)
    candidates = Candidates(masks, DIRECT_SETS[settings.algorithm.direct_set])
    return measure("direct", effects, candidates, (), circuit, settings.algorithm)


def _queries(
    name: MetricName,
    signal: str,
    patcher: PathPatcher,
    effects: dict[str, PathEffects],
    roles: Roles,
    circuit: Circuit | None,
    settings: AnalyseParams,
) -> AlgorithmMetric:
    missing = _missing(roles, "name_mover")
    if missing:
        return undefined_metric(name, missing)
    movers = name_movers_at_work(effects["direct"].effect, roles["name_mover"], settings.roles.thresholds)
    if not movers:
        return undefined_metric(name, "There are no name movers (heads that copy names, with e < 0).")
    if "queries" not in effects:
        effects["queries"] = path_effects(patcher, head_readers(patcher.graph, 0, movers))
    missing = _missing(roles, "s_inhibition")
    if missing:
        return undefined_metric(name, missing, movers)
    candidates = Candidates((inhibitors(roles["s_inhibition"], signal),), holders_that_help(settings.algorithm.effect))
    return measure(name, effects["queries"], candidates, movers, circuit, settings.algorithm)


def _values(
    name: MetricName,
    queries: AlgorithmMetric,
    patcher: PathPatcher,
    effects: dict[str, PathEffects],
    roles: Roles,
    circuit: Circuit | None,
    settings: AnalyseParams,
) -> AlgorithmMetric:
    missing = _missing(roles, "copy_suppression") or (queries.reason if queries.status == "undefined" else "")
    if missing:
        return undefined_metric(name, missing)
    suppressors = holders(roles["copy_suppression"], settings.roles.thresholds)
    receivers = tuple(head for head in queries.heads if head not in suppressors)
    if not receivers:
        return undefined_metric(name, "There are no S-inhibition heads (with e below the limit, no copy suppression).")
    effects[name] = path_effects(patcher, head_readers(patcher.graph, 2, receivers))
    missing = _missing(roles, "induction", "duplicate_token")
    if missing:
        return undefined_metric(name, missing, receivers)
    masks = tuple(_above_mean(roles[role]) for role in ("induction", "duplicate_token"))
    candidates = Candidates(masks, holders_that_help(settings.algorithm.effect))
    return measure(name, effects[name], candidates, receivers, circuit, settings.algorithm)


def _missing(roles: Roles, *names: str) -> str:
    """Why one of these roles is not there; empty if all are."""
    for name in names:
        if name not in roles:
            return f"The role {name} was not measured."
        if roles[name].status == "undefined":
            return f"The role {name} is undefined: {roles[name].reason}"
    return ""


def _mask(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    mask = torch.zeros(scores.score.shape, dtype=torch.bool)
    for head in holders(scores, thresholds):
        mask[head] = True
    return mask


def _above_mean(scores: RoleScores) -> Bool[Tensor, "layers heads"]:
    return scores.score > scores.score.nanmean()
