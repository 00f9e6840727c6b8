"""Successor heads: from Monday to Tuesday, from weights alone (METHODS 6.2; Gould et al. 2023).

For a token t of an ordered list: x = MLP0(LN2_0(W_E[t])), then the head's OV path with its norms (METHODS 6.0). It is a
success iff, among the list's targets, the successor of t has the largest logit. A list is one of `words.SEQUENCES` in
one spelling (with or without a leading space, in one case); a pair counts only if both words are one token each, and a
list only if it has at least three such pairs: choosing among fewer shows nothing.

The score is the share of successes over the pairs of all lists, its chance the mean of 1 / (targets of the pair's
list); details hold the share in each list. LayerNorm: LN2_0 on the embedding, LN1 of the head's layer on what the first
MLP makes of it, both with the statistics of what they read; the final norm's statistics change no order. Option
`layer_norm: none`: no statistics anywhere, as in the paper's code (scale, shift and centring stay).

Layer 0 cannot read the first MLP's output; its heads are scored by the same formula, as everybody's are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.components.base import Material, Role, register, undefined
from ontogeny.core.pairs import Tokenizer
from ontogeny.core.roles import RoleScores
from ontogeny.models.paths import first_mlp, head_readouts, head_values
from ontogeny.models.subject import Subject
from ontogeny.params import RolesParams, ThresholdParams
from ontogeny.tasks import words
from ontogeny.tasks.base import is_one_token

FEWEST = 3
"""Pairs of a list."""


@dataclass(frozen=True)
class OrderedList:
    """Successive tokens of one list in one spelling."""

    name: str
    """``days``, ``days-case`` in the other case, each with ``-space`` after a leading space."""
    sources: Int[Tensor, " pairs"]
    targets: Int[Tensor, " pairs"]


def ordered_lists(tokenizer: Tokenizer, vocab: int) -> tuple[OrderedList, ...]:
    """The lists that this tokenizer can spell in single tokens, each in every spelling."""
    found = []
    for name, items in words.SEQUENCES.items():
        for mark, spelled in _spellings(items).items():
            for space in (" ", ""):
                pairs = list(pairwise(spelled)) + ([(spelled[-1], spelled[0])] if name in words.CYCLIC else [])
                ids = [
                    (tokenizer.encode(space + a)[0], tokenizer.encode(space + b)[0])
                    for a, b in pairs
                    if is_one_token(space + a, tokenizer) and is_one_token(space + b, tokenizer)
                ]
                ids = [pair for pair in ids if max(pair) < vocab]
                if len(ids) >= FEWEST:
                    sources, targets = torch.tensor(ids).T
                    found.append(OrderedList(f"{name}{mark}{'-space' if space else ''}", sources, targets))
    return tuple(found)


def _spellings(items: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The list as written, and in the other case where there is one."""
    other = tuple(item.capitalize() if item.islower() else item.lower() for item in items)
    return {"": items} if other == items else {"": items, "-case": other}


def successes(
    subject: Subject, lists: tuple[OrderedList, ...], *, norm: bool = True
) -> Float[Tensor, "layers heads lists"]:
    """Share of each list's pairs in which the successor has the largest logit among the list's targets; ties fail."""
    weights, a = subject.weights, subject.architecture
    sources = torch.cat([each.sources for each in lists]).to(subject.device)
    targets = torch.cat([each.targets for each in lists]).to(subject.device)
    x = first_mlp(weights, sources, norm=norm)
    shares = torch.zeros(a.n_layers, a.n_heads, len(lists), dtype=subject.dtype)
    for layer in range(a.n_layers):
        values = head_values(weights, layer, x, norm=norm).transpose(0, 1)
        readouts = head_readouts(weights, layer, targets)
        start = 0
        for place, each in enumerate(lists):
            here = slice(start, start + len(each.sources))
            logits = values[:, here] @ readouts[:, :, here]
            own = logits.diagonal(dim1=-2, dim2=-1)
            beaten = (logits < own[..., None]).sum(dim=-1)
            shares[layer, :, place] = (beaten == len(each.sources) - 1).to(shares).mean(dim=-1)
            start = here.stop
    return shares


def _score(subject: Subject, material: Material, params: RolesParams) -> RoleScores:  # noqa: ARG001
    if subject.tokenizer is None:
        return undefined("successor", subject, f"{subject.source} has no tokenizer.json: ordered lists have no tokens.")
    lists = ordered_lists(subject.tokenizer, subject.architecture.vocab)
    if not lists:
        return undefined(
            "successor", subject, f"No ordered list has {FEWEST} pairs whose words are one token of this tokenizer."
        )
    by_list = successes(subject, lists, norm=params.successor.layer_norm == "real")
    counts = torch.tensor([len(each.sources) for each in lists]).to(by_list)
    score = by_list @ (counts / counts.sum())
    facts = {f"pairs/{each.name}": float(len(each.sources)) for each in lists}
    facts |= {"pairs": float(counts.sum()), "lists": float(len(lists))}
    chance = torch.full_like(score, len(lists) / float(counts.sum()))
    details = {f"share/{each.name}": by_list[..., place].clone() for place, each in enumerate(lists)}
    return RoleScores("successor", "measured", "", score, chance, details, facts)


def _succeeds(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    return scores.score >= thresholds.successor


SUCCESSOR = register(
    Role("successor", "successor", "Gould et al. 2023", "1", _score, _succeeds, sections=("successor",))
)
