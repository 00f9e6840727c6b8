"""Copy suppression: how much of a head's direct effect is lowering tokens that were about to be copied (METHODS 6.4).

CSPA, the copy-suppression-preserving ablation of McDougall et al. 2023, on held-out text. With A the head's pattern,
o_s the output of source s (its value through W_O), m_d the mean output at position d over other documents, and u_s the
unembedding of the source's own token, the head's output at destination d is, and becomes,

    whole             m_d + sum over s of A[d, s] (o_s - m_d)
    mean-ablated      m_d
    CSPA              m_d + sum over s in K_d of A[d, s] P(o_s - m_d)

    P(x)   the component of x along u_s where that lowers the logit of s, else 0       (OV part)
    K_d    all occurrences of the ceil(0.05 (d + 1)) distinct tokens up to d, d itself included, that the logit lens on
           the residual before the head ranks highest at d                             (QK part)

    score = 1 - mean KL(whole || CSPA) / mean KL(whole || mean-ablated)

over destinations, direct effect only: the change goes straight to the logits. 1: copy suppression is all the head does;
0: as bad as the mean; below 0: worse. NaN where the mean-ablated head is as good as the whole one (KL under
`SMALLEST`). Chance: the same with the unembedding of another token of the document in P, on every eighth document.

LayerNorm: the head's own run; the final norm's scale is frozen at that of the whole model, so that logits are linear in
the head's output; the logit lens has the final norm with its real statistics. There is no list of function words.

With D the change of the logits, centred under the whole model's probabilities p, KL = log(1 + sum of p expm1(D)): no
difference of large numbers. D has the rank of the head plus the number of kept tokens, which is what makes it cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.components.base import Material, Role, Texts, register, undefined
from ontogeny.core.roles import RoleScores
from ontogeny.models.forward import BlockRun, Residual
from ontogeny.models.functional import normalise
from ontogeny.models.memory import halved
from ontogeny.models.paths import head_outputs, head_readouts, run_blocks
from ontogeny.models.readout import read_logits
from ontogeny.models.subject import Subject
from ontogeny.params import CopySuppressionParams, RolesParams, ThresholdParams

FEWEST = 5
"""Documents that the mean at a position is taken over; positions that fewer reach are not scored."""
SMALLEST = 1e-9
"""Mean KL in nats below which a head has no effect of its own to explain (float32 resolves about 1e-11)."""
COLUMNS = 2048
"""Columns of a batch of documents; with the vocabulary it bounds memory."""
CHUNK = 1024
"""Tokens of the vocabulary at a time, each piece dense: so that a document's logits stay in the cache."""
NULL_EVERY = 8


@dataclass(frozen=True)
class Halves:
    """Disjoint documents."""

    scored: Texts
    mean: Texts


@dataclass(frozen=True)
class Means:
    """Mean value of each head (before W_O) at each position that enough documents reach."""

    values: Float[Tensor, "layers positions heads d_head"]

    @property
    def positions(self) -> int:
        """Positions that can be scored."""
        return self.values.shape[1]


Pieces = tuple[Float[Tensor, "rows chunk"], ...]
"""``[rows, vocab]`` cut along the vocabulary, each piece dense."""


def pieces(x: Float[Tensor, "rows vocab"]) -> Pieces:
    """Cut at `CHUNK` tokens."""
    return tuple(part.contiguous() for part in x.split(CHUNK, dim=1))


@dataclass(frozen=True)
class Document:
    """One document as the final logits see it; rows are the destinations that are scored."""

    row: int
    """Its row in the batch ..."""
    start: int
    """... and its first column."""
    probabilities: Pieces
    scale: Float[Tensor, "rows 1"]
    """1 / sigma of the final norm."""
    distinct: Int[Tensor, " distinct"]
    """Distinct tokens of the rows."""
    which: Int[Tensor, " rows"]
    """Which of `distinct` each row's token is."""
    seen: Bool[Tensor, "rows distinct"]
    """Whether a token stands at or before a row."""
    direction: Float[Tensor, "distinct d_model"]
    """u of each distinct token."""
    onto: Pieces
    """What a step along each u does to all logits; ones in the last row: ``[distinct + 1, vocab]``."""
    expected: Float[Tensor, "rows d_model"]
    """Mean of all tokens' u under the probabilities."""
    shift: int
    """Another token for each: so many further in `distinct`; 0 where the null is not measured."""

    @property
    def rows(self) -> int:
        """Destinations that are scored."""
        return len(self.which)


@dataclass(frozen=True)
class Ablation:
    """What is added to the mean-ablated heads of a layer: few tokens' u at each destination."""

    tokens: Int[Tensor, "rows kept+1"]
    """Rows of `Document.onto`; the last is that of ones ..."""
    coefficients: Float[Tensor, "heads rows kept+1"]
    """... whose coefficient takes off the mean of the change under the probabilities."""


def split_halves(text: Texts, settings: CopySuppressionParams) -> Halves:
    """Documents in a seeded order, in turn to be scored and for the mean, until each has its tokens."""
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(text.lengths), generator=generator).tolist()
    chosen: tuple[list[int], list[int]] = ([], [])
    for place, document in enumerate(order):
        half = chosen[place % 2]
        if int(text.lengths[half].sum()) < settings.tokens:
            half.append(document)
    scored, mean = (Texts(text.tokens[half], text.lengths[half]) for half in chosen)
    return Halves(scored, mean)


def batches(text: Texts, columns: int | None = None) -> Iterator[Texts]:
    """Documents of like length together, at most so many columns at a time; None: `COLUMNS`."""
    order = torch.argsort(text.lengths, descending=True, stable=True).tolist()
    while order:
        width = int(text.lengths[order[0]])
        count = sum(
            1 for i in order[: max(1, (columns or COLUMNS) // max(width, 1))] if 2 * int(text.lengths[i]) >= width
        )
        yield Texts(text.tokens[order[:count], :width], text.lengths[order[:count]])
        order = order[count:]


def mean_values(subject: Subject, text: Texts, columns: int | None = None) -> Means:
    """Mean of the heads' values per position, before W_O."""
    a, longest = subject.architecture, int(text.lengths.max())
    counts = (text.lengths[:, None] > torch.arange(longest)).sum(dim=0)
    sums = torch.zeros(a.n_layers, longest, a.n_heads, a.d_head, dtype=subject.dtype, device=subject.device)
    for part in batches(text, columns):
        for layer, (done, _) in enumerate(_run(subject, part)):
            for row, length in enumerate(part.lengths.tolist()):
                sums[layer, :length] += done.heads[row, -length:]
    positions = int((counts >= FEWEST).sum())
    return Means((sums / counts.to(sums)[None, :, None, None])[:, :positions].contiguous())


def divergences(
    subject: Subject,
    text: Texts,
    means: Means,
    attended: float,
    generator: torch.Generator,
    columns: int | None = None,
) -> Float[Tensor, "4 layers heads"]:
    """Sums over destinations of KL in nats: mean-ablated, CSPA; and on every eighth document mean-ablated, null."""
    a = subject.architecture
    sums = torch.zeros(4, a.n_layers, a.n_heads, dtype=torch.float64)
    taken = 0
    for part in batches(text, columns):
        documents = _documents(subject, part, means.positions, taken, generator)
        taken += len(documents)
        for layer, (done, _) in enumerate(_run(subject, part)):
            sums[:, layer] += _layer(subject, layer, done, documents, means, attended)
    return sums


def _run(subject: Subject, text: Texts) -> Iterator[tuple[BlockRun, Residual]]:
    return run_blocks(subject.weights, text.tokens.to(subject.device), text.lengths.to(subject.device))


def _documents(subject: Subject, text: Texts, positions: int, taken: int, generator: torch.Generator) -> list[Document]:
    weights, found = subject.weights, []
    *_, (_, resid) = _run(subject, text)
    for row, length in enumerate(text.lengths.tolist()):
        rows = min(length, positions)
        final = resid[row, resid.shape[1] - length :][:rows]
        distinct, which = text.tokens[row, :rows].to(subject.device).unique(return_inverse=True)
        first = torch.full_like(distinct, rows).scatter_reduce_(0, which, torch.arange(rows).to(which), "amin")
        probabilities = read_logits(weights, final).softmax(dim=-1)
        direction = weights.unembed[:, distinct].T.contiguous()
        shift = 0
        if (taken + row) % NULL_EVERY == 0 and len(distinct) > 1:
            shift = int(torch.randint(1, len(distinct), (), generator=generator))
        found.append(
            Document(
                row=row,
                start=resid.shape[1] - length,
                probabilities=pieces(probabilities),
                scale=normalise(subject.architecture, final)[2],
                distinct=distinct,
                which=which,
                seen=first[None, :] <= torch.arange(rows, device=first.device)[:, None],
                direction=direction,
                onto=pieces(torch.cat([direction @ weights.unembed, torch.ones_like(probabilities[:1])])),
                expected=probabilities @ weights.unembed.T,
                shift=shift,
            )
        )
    return found


def _layer(
    subject: Subject, layer: int, done: BlockRun, documents: list[Document], means: Means, attended: float
) -> Float[Tensor, "4 heads"]:
    """`divergences` of one layer on one batch."""
    changes, ablations = [], []
    for doc in documents:
        columns = slice(doc.start, doc.start + doc.rows)
        changes.append((means.values[layer, : doc.rows] - done.heads[doc.row, columns]) * doc.scale[..., None])
        keep = kept_tokens(subject, doc, done.normed[doc.row, columns], attended)
        shifts = (0, doc.shift) if doc.shift else (0,)
        ablations.append([_ablate(subject, layer, done, doc, means, keep, shift) for shift in shifts])
    sums = torch.zeros(4, subject.architecture.n_heads, dtype=torch.float64)
    for head, out in enumerate(head_outputs(subject.weights, layer)):
        onto = pieces(out @ subject.weights.unembed)
        for doc, change, found in zip(documents, changes, ablations):
            change_here = change[:, head].contiguous()
            mean_change = ((change_here @ out) * doc.expected).sum(dim=-1, keepdim=True)
            added = [(each.tokens, each.coefficients[head]) for each in found]
            kl = _kl(doc, change_here, mean_change, onto, added)
            sums[:2, head] += kl[:2]
            if doc.shift:
                sums[2:, head] += kl[[0, 2]]
    return sums


def kept_tokens(
    subject: Subject, doc: Document, normed: Float[Tensor, "rows d_model"], attended: float
) -> Bool[Tensor, "rows distinct"]:
    """K_d: the distinct tokens so far that the logit lens ranks highest, from the residual before the head."""
    weights = subject.weights
    lens = (normed @ doc.direction.T + weights.unembed_bias[doc.distinct]).masked_fill(~doc.seen, -torch.inf)
    context = torch.arange(1, doc.rows + 1, dtype=torch.float64)
    kept = torch.ceil(attended * context - 1e-9).long().clamp(1, len(doc.distinct)).to(lens.device)
    least = lens.sort(dim=-1, descending=True).values.gather(1, kept[:, None] - 1)
    return doc.seen & (lens >= least)


def _ablate(
    subject: Subject,
    layer: int,
    done: BlockRun,
    doc: Document,
    means: Means,
    keep: Bool[Tensor, "rows distinct"],
    shift: int,
) -> Ablation:
    """What CSPA adds to the mean-ablated heads of a layer; with a shift, along another token's u."""
    columns = slice(doc.start, doc.start + doc.rows)
    along = (doc.which + shift) % len(doc.distinct)
    readouts = head_readouts(subject.weights, layer, doc.distinct)
    own = torch.einsum("hsd,hds->hs", done.v[doc.row, :, columns], readouts[:, :, along])
    mean = torch.einsum("thd,hdk->htk", means.values[layer, : doc.rows], readouts)[:, :, along]
    lowered = (own[:, None, :] - mean).clamp_(max=0.0)
    lowered /= doc.direction.square().sum(dim=-1)[along]
    lowered *= done.pattern[doc.row, :, columns, columns]
    lowered *= keep[:, doc.which]
    own_token = torch.zeros_like(readouts[0, :1]).expand(doc.rows, -1).scatter(1, along[:, None], 1.0)
    by_token = (lowered @ own_token) * doc.scale
    kept = keep.int().topk(int(keep.sum(dim=1).max()), dim=1).indices
    tokens = (kept + shift) % len(doc.distinct)
    coefficients = by_token.gather(2, tokens.expand(len(by_token), -1, -1))
    expected = doc.expected @ doc.direction.T
    centre = -(coefficients * expected.gather(1, tokens)).sum(dim=-1, keepdim=True)
    ones = torch.full_like(tokens[:, :1], len(doc.distinct))
    return Ablation(torch.cat([tokens, ones], dim=1), torch.cat([coefficients, centre], dim=-1))


def _kl(
    doc: Document,
    change: Float[Tensor, "rows d_head"],
    centre: Float[Tensor, "rows 1"],
    onto: Pieces,
    ablations: list[tuple[Int[Tensor, "rows kept+1"], Float[Tensor, "rows kept+1"]]],
) -> Float[Tensor, " ablations+1"]:
    """Sum over rows of KL(whole || changed) in nats: the head mean-ablated, and with each ablation added to that."""
    sums = change.new_zeros(1 + len(ablations), len(change))
    for p, head, tokens in zip(doc.probabilities, onto, doc.onto):
        delta = torch.addmm(-centre, change, head)
        for place, (which, coefficients) in enumerate(ablations, start=1):
            changed = F.embedding_bag(which, tokens, per_sample_weights=coefficients, mode="sum").add_(delta)
            sums[place] += torch.linalg.vecdot(p, changed.expm1_())
        sums[0] += torch.linalg.vecdot(p, delta.expm1_())
    return sums.double().log1p().sum(dim=1).cpu()


def _score(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    settings, role = params.copy_suppression, "copy_suppression"
    if material.text is None:
        return undefined(role, subject, "There is no held-out text to measure it on.")
    text = _within(subject, material.text)
    if len(text.lengths) < 2 * FEWEST:
        return undefined(
            role, subject, f"The held-out text has {len(text.lengths)} documents; at least {2 * FEWEST} are needed."
        )
    if int(text.tokens.max()) >= subject.architecture.vocab:
        return undefined(role, subject, "The held-out text uses tokens beyond the model's vocabulary.")
    halves = split_halves(text, settings)
    (rows, sums), _ = halved(lambda columns: _sums(subject, halves, settings, columns), COLUMNS, "column of text")
    if rows == 0:
        return undefined(role, subject, f"Fewer than {FEWEST} documents are there to take the mean over.")
    ablated, cspa = sums[0] / rows, sums[1] / rows
    measured = ablated > SMALLEST
    score = torch.where(measured, 1 - cspa / ablated, torch.nan)
    chance = torch.where(measured & (sums[2] > 0), 1 - sums[3] / sums[2], torch.nan)
    facts = {
        "destinations": float(rows),
        "left_out": float(halves.scored.lengths.sum() - rows),
        "documents": float(len(halves.scored.lengths)),
        "mean_documents": float(len(halves.mean.lengths)),
    }
    return RoleScores(role, "measured", "", score, chance, {"kl_mean_ablated": ablated, "kl_cspa": cspa}, facts)


def _sums(
    subject: Subject, halves: Halves, settings: CopySuppressionParams, columns: int
) -> tuple[int, Float[Tensor, "4 layers heads"]]:
    """Destinations that can be scored, and `divergences`, with so many columns at a time."""
    means = mean_values(subject, halves.mean, columns)
    rows = int(halves.scored.lengths.clamp(max=means.positions).sum())
    generator = torch.Generator().manual_seed(settings.seed)
    sums = divergences(subject, halves.scored, means, settings.attended, generator, columns) if rows else torch.zeros(4)
    return rows, sums.to(subject.dtype)


def _within(subject: Subject, text: Texts) -> Texts:
    """The text as far as the model's context goes."""
    context = subject.architecture.context
    return Texts(text.tokens[:, :context], text.lengths.clamp(max=context))


def _suppresses(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    return scores.score > thresholds.copy_suppression


COPY_SUPPRESSION = register(
    Role(
        "copy_suppression",
        "copy suppression",
        "McDougall et al. 2023",
        "1",
        _score,
        _suppresses,
        sections=("copy_suppression",),
        uses_text=True,
    )
)
