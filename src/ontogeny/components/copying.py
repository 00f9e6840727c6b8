"""Copy score: name movers, and with the sign flipped negative name movers (METHODS 6.3; Wang et al. 2022).

x = the residual after block 0 at the names of the IOI prompts (IO, S1, S2), then the head's OV path with its norms
(METHODS 6.0): a success if that name is among the `top` tokens, per cent of all names of the `discover` split. The
negative score asks the same of the negated path: is the name among the tokens that the head lowers most? Chance: the
same with another name put in place, the mean over all other names of the data set; a head that lifts any name,
whichever it reads, has as much chance as score. A token that draws with others takes the last of their places.

LayerNorm: block 0 is the model's own run; LN1 of the head's layer with the statistics of x (a layer behind reads later
residuals than x, but the score asks what the head would do with the name alone); the final norm's statistics change no
order. Option `layer_norm: none`: x goes into the head as it is, as in the paper's code, whose threshold is 10 without
regard to chance. Layer 0 cannot read x, which is made behind it; its heads are scored by the same formula.

Unembedding 3 x pairs x heads vectors over the whole vocabulary would cost more than everything else. A vector is
settled as soon as `top` other tokens lie above all names, and as many below them, which a sample of the vocabulary
shows for all but a few heads; only the others are unembedded whole. The answer is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.components.base import Material, Role, register, undefined
from ontogeny.core.pairs import PromptPair, Tokenizer
from ontogeny.core.roles import RoleScores
from ontogeny.models.paths import head_outputs, head_values, run_blocks
from ontogeny.models.subject import Subject
from ontogeny.models.weights import Weights
from ontogeny.params import RolesParams, ThresholdParams
from ontogeny.tasks.base import is_one_token

PLACES = ("IO", "S1", "S2")
SAMPLE = 4096
"""Tokens of the vocabulary that settle most vectors."""
ROWS = 256
"""Vectors that are unembedded at a time."""


@dataclass(frozen=True)
class NamePlaces:
    """Prompts as right-padded tokens, and where their names stand."""

    tokens: Int[Tensor, "prompts tokens"]
    lengths: Int[Tensor, " prompts"]
    places: Int[Tensor, "prompts 3"]
    """Position of IO, S1, S2."""
    names: Int[Tensor, " names"]
    """Ids of all names in the prompts, ascending."""
    which: Int[Tensor, "prompts 3"]
    """Which of `names` stands at each place."""


def name_places(pairs: Sequence[PromptPair], tokenizer: Tokenizer) -> NamePlaces | str:
    """Where IO, S1 and S2 stand in the clean prompts, or a sentence that says why they cannot be found."""
    rows, places, ids = [], [], []
    for pair in pairs:
        row = tokenizer.encode(pair.clean)
        io, s = (_places_of(pair.slots.get(slot, ""), row, tokenizer) for slot in ("IO", "S"))
        if len(io) != 1 or len(s) != 2:
            return (
                f"IO must stand once and S twice, as one token each, in every prompt; in {pair.clean!r} "
                f"they stand {len(io)} and {len(s)} times."
            )
        rows.append(row)
        places.append([io[0], *s])
        ids.append([row[place] for place in places[-1]])
    if not rows:
        return "The IOI data set has no prompts."
    width = max(map(len, rows))
    names, which = torch.tensor(ids).unique(return_inverse=True)
    return NamePlaces(
        torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        torch.tensor([len(row) for row in rows]),
        torch.tensor(places),
        names,
        which,
    )


def _places_of(name: str, row: list[int], tokenizer: Tokenizer) -> list[int]:
    known = {tokenizer.encode(text)[0] for text in (name, " " + name) if name and is_one_token(text, tokenizer)}
    return [place for place, token in enumerate(row) if token in known]


def after_block_0(subject: Subject, found: NamePlaces) -> Float[Tensor, "prompts 3 d_model"]:
    """The residual after block 0 at the three names."""
    tokens, lengths = found.tokens.to(subject.device), found.lengths.to(subject.device)
    _, resid = next(iter(run_blocks(subject.weights, tokens, lengths)))
    columns = found.places.to(subject.device) + (tokens.shape[1] - lengths)[:, None]
    return resid.gather(1, columns[..., None].expand(-1, -1, resid.shape[-1]))


def names_among(
    weights: Weights, vectors: Float[Tensor, "rows d_model"], names: Int[Tensor, " names"], top: int
) -> Bool[Tensor, "2 rows names"]:
    """Whether each name is among the `top` tokens with the largest logits, and among those with the smallest."""
    among = torch.zeros(2, len(vectors), len(names), dtype=torch.bool, device=vectors.device)
    open_rows = _unsettled(weights, vectors, names, top)
    for rows in open_rows.nonzero()[:, 0].split(ROWS):
        logits = vectors[rows] @ weights.unembed
        own = logits[:, names]
        size = min(top + 1, logits.shape[1])
        for sign, largest in enumerate((True, False)):
            limits = logits.topk(size, dim=-1, largest=largest).values
            limit = limits[:, -1:] if size == top + 1 else (own.amin() - 1 if largest else own.amax() + 1)
            among[sign, rows] = own > limit if largest else own < limit
    return among


def _unsettled(
    weights: Weights, vectors: Float[Tensor, "rows d_model"], names: Int[Tensor, " names"], top: int
) -> Bool[Tensor, " rows"]:
    """Rows in which a sample of the other tokens does not already beat every name, above and below, `top` times.

    A margin far above rounding (1e-4 of the largest name's logit) keeps a draw open.
    """
    vocab = weights.unembed.shape[1]
    others = torch.arange(0, vocab, max(1, vocab // SAMPLE), device=vectors.device)
    others = others[~torch.isin(others, names)]
    sample, open_rows = weights.unembed[:, others], []
    for part in vectors.split(4 * ROWS):
        own, rest = part @ weights.unembed[:, names], part @ sample
        margin = 1e-4 * own.abs().amax(dim=-1, keepdim=True)
        above = (rest > own.amax(dim=-1, keepdim=True) + margin).sum(dim=-1)
        below = (rest < own.amin(dim=-1, keepdim=True) - margin).sum(dim=-1)
        open_rows.append((above < top) | (below < top))
    return torch.cat(open_rows)


@dataclass(frozen=True)
class Copying:
    """Shares of names that a head lifts (first index 0) or lowers (1) into the first `top` places."""

    own: Float[Tensor, "2 layers heads 3"]
    """The name that stands there, by place (IO, S1, S2)."""
    other: Float[Tensor, "2 layers heads 3"]
    """The mean over all other names."""


def copying(subject: Subject, found: NamePlaces, top: int, *, norm: bool = True) -> Copying:
    """Both signs, all heads."""
    weights, a = subject.weights, subject.architecture
    x = after_block_0(subject, found)
    names, which = found.names.to(subject.device), found.which.flatten()
    shares = torch.zeros(2, 2, a.n_layers, a.n_heads, len(PLACES), dtype=torch.float64)
    for layer in range(a.n_layers):
        values = head_values(weights, layer, x.flatten(0, 1), norm=norm)
        written = values.transpose(0, 1) @ head_outputs(weights, layer)
        among = names_among(weights, written.flatten(0, 1), names, top)
        among = among.view(2, a.n_heads, len(which), len(names)).to(shares)
        own = among.gather(-1, which.view(1, 1, -1, 1).expand(2, a.n_heads, -1, 1))[..., 0]
        other = (among.sum(dim=-1) - own) / max(1, len(names) - 1)
        for kind, share in enumerate((own, other)):
            shares[kind, :, layer] = share.view(2, a.n_heads, -1, len(PLACES)).mean(dim=2).cpu()
    return Copying(shares[0].to(subject.dtype), shares[1].to(subject.dtype))


def _score(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    if material.ioi is None:
        return undefined("name_mover", subject, "There is no IOI data set: no names to copy.")
    if subject.tokenizer is None:
        return undefined("name_mover", subject, f"{subject.source} has no tokenizer.json: names have no tokens.")
    found = name_places(material.ioi.splits.get("discover", ()), subject.tokenizer)
    if isinstance(found, str):
        return undefined("name_mover", subject, found)
    if int(found.tokens.max()) >= subject.architecture.vocab or found.tokens.shape[1] > subject.architecture.context:
        return undefined(
            "name_mover", subject, "The IOI prompts are longer than the context or use tokens beyond the vocabulary."
        )
    measured = copying(subject, found, params.copying.top, norm=params.copying.layer_norm == "real")
    own, other = 100.0 * measured.own, 100.0 * measured.other
    details = {"negative": own[1].mean(dim=-1), "negative_chance": other[1].mean(dim=-1)}
    for i, place in enumerate(PLACES):
        details |= {f"at_{place}": own[0, ..., i].clone(), f"negative_at_{place}": own[1, ..., i].clone()}
    facts = {"vectors": float(found.which.numel()), "names": float(len(found.names))}
    return RoleScores("name_mover", "measured", "", own[0].mean(dim=-1), other[0].mean(dim=-1), details, facts)


def _negative(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    """The other sign of what `name_mover` measured."""
    measured = material.roles.get("name_mover") or _score(subject, material, params)
    if measured.status == "undefined":
        return undefined("negative_name_mover", subject, measured.reason)
    details = {f"at_{place}": measured.details[f"negative_at_{place}"] for place in PLACES}
    score, chance = measured.details["negative"], measured.details["negative_chance"]
    return RoleScores("negative_name_mover", "measured", "", score, chance, details, dict(measured.facts))


def _copies(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    return scores.score > torch.clamp(thresholds.copying_times_chance * scores.chance, min=thresholds.copying)


NAME_MOVER = register(
    Role(
        "name_mover",
        "name mover",
        "Wang et al. 2022",
        "1",
        _score,
        _copies,
        sections=("copying",),
        uses_ioi=True,
    )
)
NEGATIVE_NAME_MOVER = register(
    Role(
        "negative_name_mover",
        "negative name mover",
        "Wang et al. 2022",
        "1",
        _negative,
        _copies,
        sections=("copying",),
        uses_ioi=True,
        needs=("name_mover",),
    )
)
