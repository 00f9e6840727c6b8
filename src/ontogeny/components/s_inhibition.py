"""S-inhibition: heads that tell the name movers not to look at S (METHODS 6.5; Wang et al. 2022).

A candidate is a head with an edge into a name mover's query. Its output is taken from a counterfactual prompt (the sets
of `tasks.ioi_counterfactuals`) and patched, through the MLPs between, into the queries of all name movers together, at
the last token. With the same token but the opposite position of S, an S-inhibition head makes

    the logit difference fall,   attention of the name movers END -> IO fall,   END -> S1 rise

score = the fall of the logit difference with the position signal turned round, in units of M(clean) - M(corrupted): -e
of METHODS 7.2, so that 1 is as bad as the corrupted prompt. Beside it are the falls for all five counterfactual sets:
`position` is the score, `token` the fall with the other token in the same position, and `inhibitors` asks the same
three questions of either. A head that tells the token alone (as where names stand in random order) is an inhibitor by
`token`, but does not hold the role. The chance level is the size of the fall when only place and object differ: what
the head says that is neither signal. A fall counts above it.

LayerNorm: none is skipped; runs are patched runs of the model itself. Name movers are the holders of `name_mover` whose
own direct effect helps (e < 0), as in METHODS 7.3. Heads that no edge leads from are NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.components.base import Material, Role, holders, register, undefined
from ontogeny.components.copying import name_places
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PairBatch, TaskDataset, Tokenizer, tokenize
from ontogeny.core.roles import Head, HeadScores, RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import RolesParams, ThresholdParams
from ontogeny.patching.path_patching import PathPatcher, Watch, all_heads, head_effects, head_readers
from ontogeny.tasks.ioi_counterfactuals import CONTROL, counterfactuals

NAME = "s_inhibition"
POSITION, TOKEN = "position", "token"
"""The sets in which one signal alone is turned round: the same token in the opposite position, and the other token."""
LEAST_FALL = 0.001
"""A fall counts above this and above its chance level: the limit that METHODS 7.4 has for e. Signs of smaller numbers
are those of rounding."""


def name_movers_at_work(direct: HeadScores, copying: RoleScores, thresholds: ThresholdParams) -> tuple[Head, ...]:
    """Heads that copy names and whose direct effect e on IOI helps, by layer (METHODS 7.3)."""
    return tuple(sorted(head for head in holders(copying, thresholds) if direct[head] < 0))


def s_inhibition(
    subject: Subject,
    patcher: PathPatcher,
    sets: dict[str, PairBatch],
    movers: tuple[Head, ...],
    places: Int[Tensor, "pairs 2"],
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Falls of the logit difference by set; changes of attention, of two sets, as ``position_io``, ``position_s1``.

    Args:
        subject: the model.
        patcher: of the pairs of the data set itself, whose M(clean) - M(corrupted) is the unit of the falls.
        sets: the same pairs with counterfactual prompts in the place of corrupted ones.
        movers: whose queries are patched.
        places: positions of IO and S1 in the clean prompts.
    """
    graph, clean, unit = subject.graph, patcher.clean.double().mean(), _unit(patcher)
    candidates = [head for head in all_heads(graph) if head[0] < graph.writers_before(max(at for at, _ in movers))]
    readers, watch = head_readers(graph, 0, movers), Watch(movers, places)
    found = {}
    for name, pairs in sets.items():
        patched = patcher.against(pairs.corrupted).patch(readers, candidates, at_end=True, watch=watch)
        found[name] = _spread(subject, clean - patched.metric.double().mean(dim=1)) / unit
        if name in (POSITION, TOKEN):
            moved = (patched.attention - patcher.attention(watch)).double().mean(dim=(1, 2))
            found |= {f"{name}_{place}": _spread(subject, moved[:, i]) for i, place in enumerate(("io", "s1"))}
    return found


def inhibitors(scores: RoleScores, signal: str) -> Bool[Tensor, "layers heads"]:
    """Heads with which, this signal (`position`, `token`) turned round, the logit difference and attention to IO fall
    and attention to S1 rises.
    """
    if scores.status == "undefined":
        return torch.zeros(scores.score.shape, dtype=torch.bool)
    falls = scores.details[signal] > scores.chance.clamp(min=LEAST_FALL)
    return falls & (scores.details[f"{signal}_io"] < 0) & (scores.details[f"{signal}_s1"] > 0)


def _unit(patcher: PathPatcher) -> float:
    """M(clean) - M(corrupted), logits."""
    return float(patcher.clean.double().mean() - patcher.corrupted.double().mean())


def _spread(subject: Subject, values: Float[Tensor, " candidates"]) -> Float[Tensor, "layers heads"]:
    """The candidates are the first heads; the others are not measured."""
    graph = subject.graph
    spread = torch.full((graph.n_layers * graph.n_heads,), torch.nan, dtype=torch.float64)
    spread[: len(values)] = values
    return spread.view(graph.n_layers, graph.n_heads)


def _score(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    copying = material.roles["name_mover"]
    if copying.status == "undefined":
        return undefined(NAME, subject, f"Without name movers there is none: {copying.reason}")
    assert material.ioi is not None, "name movers were found on it"
    assert subject.tokenizer is not None, "name movers were found with it"
    try:
        batch, sets = _batches(material.ioi, subject.tokenizer)
    except ImpossibleRequest as error:
        return undefined(NAME, subject, str(error))
    found = name_places(material.ioi.splits["discover"], subject.tokenizer)
    assert not isinstance(found, str), "name movers were found at these places"
    patcher = PathPatcher(subject, sets["stranger"]).against(batch.corrupted)
    if not math.isfinite(_unit(patcher)) or _unit(patcher) == 0:
        return undefined(NAME, subject, f"M(clean) - M(corrupted) is {_unit(patcher):.4g}: falls have no unit.")
    direct = head_effects(patcher, patcher.patch([subject.graph.logits_reader]).metric)
    movers = name_movers_at_work(direct, copying, params.thresholds)
    if not movers:
        return undefined(NAME, subject, "There are no name movers (heads that copy names, with e < 0).")
    if movers[-1][0] == 0:
        return undefined(NAME, subject, "All name movers are in the first block: no head comes before them.")
    measured = s_inhibition(subject, patcher, sets, movers, found.places[:, :2])
    details = {name: value for name, value in measured.items() if name != CONTROL}
    facts = {"name_movers": float(len(movers)), "unit": _unit(patcher)}
    return RoleScores(NAME, "measured", "", measured[POSITION].clone(), measured[CONTROL].abs(), details, facts)


def _batches(dataset: TaskDataset, tokenizer: Tokenizer) -> tuple[PairBatch, dict[str, PairBatch]]:
    """The pairs themselves and each counterfactual set, tokenised."""
    sets = {name: tokenize(pairs, dataset.metric, tokenizer) for name, pairs in counterfactuals(dataset).items()}
    return tokenize(dataset.splits["discover"], dataset.metric, tokenizer), sets


def _inhibits(scores: RoleScores, _: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    return inhibitors(scores, POSITION)


S_INHIBITION = register(
    Role(
        NAME,
        "S-inhibition",
        "Wang et al. 2022",
        "2",
        _score,
        _inhibits,
        sections=("copying", "thresholds"),
        uses_ioi=True,
        needs=("name_mover",),
    )
)
