"""Roles that are patterns of attention: induction, previous token, duplicate token (METHODS 6.1).

Random ordinary tokens, drawn without repeats, a run of which is said twice. In such a sequence of 2 * len tokens a
head's mean attention on the diagonal q - k = lag is one curve over lags, and the roles are three of its points:

    induction        lag len - 1    the token after the earlier occurrence of this one (Olsson et al. 2022)
    previous token   lag 1
    duplicate token  lag len        the earlier occurrence itself (Wang et al. 2022)

The diagonal of lag len - 1 leaves out its first entry: the last token of the first run has not been seen before. The
model is run once; `previous_token` and `duplicate_token` read the curve that `induction` measured. Attention patterns
are those of the model itself, so every norm is applied as it is. Chance: attention spread evenly over all tokens so
far, the mean over the same entries of 1 / (q + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.components.base import Material, Role, register, undefined
from ontogeny.core.roles import RoleScores
from ontogeny.models.memory import halved
from ontogeny.models.paths import run_blocks
from ontogeny.models.readout import read_logits
from ontogeny.models.subject import Subject
from ontogeny.params import AttentionParams, RolesParams, ThresholdParams

CURVE = "attention_by_lag"
"""The detail that holds the curve, lags 0 ... 2 len - 1."""
AT_ONCE = 2**18
"""Entries of a head's patterns that are held at a time."""
SHORTEST = 4
"""Tokens of the run: with fewer, chance is as high as the threshold."""


@dataclass(frozen=True)
class RepeatedRun:
    """Sequences of ordinary tokens, drawn without repeats, the run said twice."""

    tokens: Int[Tensor, "sequences tokens"]
    length: int


def repeated_run(subject: Subject, settings: AttentionParams) -> RepeatedRun:
    """The sequences: the same for every checkpoint that has the same tokenizer, vocabulary and context."""
    a = subject.architecture
    ordinary = torch.arange(a.vocab)
    if subject.tokenizer is not None:
        ordinary = torch.tensor([i for i in subject.tokenizer.ordinary_ids() if i < a.vocab])
    length = min(settings.longest, a.context // 2, len(ordinary))
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = [ordinary[torch.randperm(len(ordinary), generator=generator)[:length]] for _ in range(settings.sequences)]
    return RepeatedRun(torch.stack(drawn).repeat(1, 2), length)


def uniform_by_lag(length: int) -> Float[Tensor, " lags"]:
    """The curve of a head that attends evenly to all tokens so far."""
    tokens = 2 * length
    even = (1.0 / torch.arange(1, tokens + 1, dtype=torch.float64))[:, None].expand(tokens, tokens)
    return by_lag(even.tril()[None], length)[0]


def by_lag(pattern: Float[Tensor, "heads tokens tokens"], length: int) -> Float[Tensor, "heads lags"]:
    """Mean over each diagonal q - k = lag, without the entry of lag len - 1 that is no induction position."""
    tokens = pattern.shape[-1]
    lags = torch.arange(tokens, device=pattern.device)
    lag = (lags[:, None] - lags[None, :]).clamp(min=0)
    seen = torch.ones(tokens, tokens, device=pattern.device).tril()
    seen[length - 1, 0] = 0.0
    sums = pattern.new_zeros(len(pattern), tokens).index_add_(1, lag.flatten(), (pattern * seen).flatten(1))
    counts = seen.new_zeros(tokens).index_add_(0, lag.flatten(), seen.flatten())
    return sums / counts


def _measure(subject: Subject, material: Material, params: RolesParams) -> RoleScores:  # noqa: ARG001
    run = repeated_run(subject, params.attention)
    if run.length < SHORTEST:
        return undefined(
            "induction",
            subject,
            f"A run of {run.length} tokens is all that a context of {subject.architecture.context} tokens and the "
            f"ordinary tokens of the vocabulary allow; at least {SHORTEST} are needed.",
        )
    at_once = min(max(1, AT_ONCE // (4 * run.length**2)), len(run.tokens))
    (patterns, losses), _ = halved(lambda size: _means(subject, run, size), at_once, "sequence")
    curve = torch.stack([by_lag(pattern, run.length) for pattern in patterns])
    first, second = losses.tolist()
    facts = {
        "length": float(run.length),
        "sequences": float(len(run.tokens)),
        "loss_first": first,
        "loss_second": second,
    }
    return _point(curve, "induction", run.length - 1, {CURVE: curve}, facts)


def _means(
    subject: Subject, run: RepeatedRun, at_once: int
) -> tuple[Float[Tensor, "layers heads tokens tokens"], Float[Tensor, 2]]:
    """Means over sequences: attention patterns, and the losses of `_losses`."""
    a, tokens = subject.architecture, run.tokens.to(subject.device)
    total = torch.zeros(a.n_layers, a.n_heads, 2 * run.length, 2 * run.length, dtype=subject.dtype)
    losses = torch.zeros(2, dtype=torch.float64)
    for part in tokens.split(at_once):
        lengths = torch.full((len(part),), part.shape[1], device=subject.device)
        final = tokens.new_empty(0)
        for layer, (done, final) in enumerate(run_blocks(subject.weights, part, lengths)):  # noqa: B007
            total[layer] += done.pattern.sum(dim=0).to(total)
        losses += _losses(subject, final, part, run.length)
    return total / len(tokens), losses / len(tokens)


def _losses(
    subject: Subject, resid: Float[Tensor, "rows tokens d_model"], tokens: Int[Tensor, "rows tokens"], length: int
) -> Float[Tensor, 2]:
    """Sum over rows of the mean loss, in nats, on each half; a half's first token has nothing before it in its run."""
    sums = torch.zeros(2, dtype=torch.float64)
    for half, start in enumerate((0, length)):
        before, targets = resid[:, start : start + length - 1], tokens[:, start + 1 : start + length]
        for x, t in zip(before.flatten(0, 1).split(512), targets.flatten().split(512)):
            logits = read_logits(subject.weights, x)
            loss = logits.logsumexp(dim=-1) - logits.gather(1, t[:, None])[:, 0]
            sums[half] += float(loss.cpu().double().sum()) / (length - 1)
    return sums


def _point(
    curve: Float[Tensor, "layers heads lags"], role: str, lag: int, details: dict[str, Tensor], facts: dict[str, float]
) -> RoleScores:
    """The role at one lag of the curve."""
    score = curve[..., lag].clone()
    chance = torch.full_like(score, float(uniform_by_lag(int(facts["length"]))[lag]))
    return RoleScores(role, "measured", "", score, chance, details, facts)


def _other(subject: Subject, material: Material, params: RolesParams, role: str) -> RoleScores:
    """Another point of the curve that `induction` measured."""
    measured = material.roles.get("induction") or _measure(subject, material, params)
    if measured.status == "undefined":
        return undefined(role, subject, measured.reason)
    length = int(measured.facts["length"])
    lag = 1 if role == "previous_token" else length
    return _point(measured.details[CURVE], role, lag, {}, dict(measured.facts))


def _previous_token(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    return _other(subject, material, params, "previous_token")


def _duplicate_token(subject: Subject, material: Material, params: RolesParams) -> RoleScores:
    return _other(subject, material, params, "duplicate_token")


def _attends(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    return scores.score >= thresholds.attention


def _induces(scores: RoleScores, thresholds: ThresholdParams) -> Bool[Tensor, "layers heads"]:
    """Attention alone is not induction: the model must also gain by the repeat."""
    gains = scores.facts.get("loss_second", 0.0) < scores.facts.get("loss_first", 0.0)
    return _attends(scores, thresholds) & gains


INDUCTION = register(
    Role("induction", "induction", "Olsson et al. 2022", "1", _measure, _induces, sections=("attention",))
)
PREVIOUS_TOKEN = register(
    Role(
        "previous_token",
        "previous token",
        "Elhage et al. 2021",
        "1",
        _previous_token,
        _attends,
        sections=("attention",),
        needs=("induction",),
    )
)
DUPLICATE_TOKEN = register(
    Role(
        "duplicate_token",
        "duplicate token",
        "Wang et al. 2022",
        "1",
        _duplicate_token,
        _attends,
        sections=("attention",),
        needs=("induction",),
    )
)
