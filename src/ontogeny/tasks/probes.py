"""Probe sets that tell how a model solves IOI (METHODS 11.2): by content, or by a shortcut of the frame.

All names of a probe are held out together, so none of these sentences is in the corpus. The summary prints, for every
scale, how often logit(IO) > logit(S) and the mean probabilities of IO, S and the bystander.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import Tokenizer
from ontogeny.tasks import words
from ontogeny.tasks.base import one_token_words
from ontogeny.tasks.ioi import names_held_out

SIZE = 100


@dataclass(frozen=True)
class Probe:
    """A prompt and the three people in it, each a string of one token with its leading space."""

    prompt: str
    io: str
    s: str
    bystander: str | None


@dataclass(frozen=True)
class ProbeResult:
    """Means over a probe set."""

    accuracy: float
    """Share of prompts with logit(IO) > logit(S)."""
    io: float
    s: float
    bystander: float | None
    """Mean probabilities; None where there is no bystander."""


FRAMES: Mapping[str, tuple[str, ...]] = {
    "standard": (
        "When {pair} went to the {place}, {s} gave a {object} to",
        "Then {pair} went to the {place}. {s} gave a {object} to",
    ),
    "bystander": (
        "When {pair} went to the {place}, {s} called {other} and gave a {object} to",
        "Then {pair} went to the {place}. {s} called {other} and gave a {object} to",
    ),
    "nearest": (
        "When {s} went to the {place}, {s} met {io} and gave a {object} to",
        "Later {s} was at the {place}. {s} saw {io} and gave a {object} to",
    ),
    "abc": (
        "When {pair} went to the {place}, {other} gave a {object} to",
        "Then {pair} went to the {place}. {other} gave a {object} to",
    ),
}
"""`standard`: IOI. `bystander`: a person named once between the second S and the end (never with this verb in the
corpus). `nearest`: the answer is the nearest name. `abc`: a fresh giver, either of the pair may follow (called IO and
S at random)."""


def probe_sets(tokenizer: Tokenizer, size: int = SIZE, seed: int = 0) -> dict[str, tuple[Probe, ...]]:
    """`size` prompts of each kind.

    Raises:
        ImpossibleRequest: this tokenizer has too few one-token names.
    """
    names = one_token_words(words.NAMES, tokenizer)
    triples = [
        (a, b, c)
        for i, a in enumerate(names)
        for j, b in enumerate(names[i + 1 :], i + 1)
        for c in names[j + 1 :]
        if names_held_out(a, b) and names_held_out(a, c) and names_held_out(b, c)
    ]
    if not triples:
        raise ImpossibleRequest(
            "The probe sets need three names held out together; "
            f"{len(names)} of {len(words.NAMES)} names are one token of this tokenizer."
        )
    return {kind: _probes(kind, triples, size, random.Random(f"probes/{kind}/{seed}")) for kind in FRAMES}


def _probes(kind: str, triples: list[tuple[str, str, str]], size: int, rng: random.Random) -> tuple[Probe, ...]:
    made = []
    for i in range(size):
        io, s, other = rng.sample(rng.choice(triples), 3)
        pair = f"{io} and {s}" if rng.random() < 0.5 else f"{s} and {io}"
        fill = {"place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
        frame = FRAMES[kind][i % len(FRAMES[kind])]
        prompt = frame.format(pair=pair, io=io, s=s, other=other, **fill)
        made.append(Probe(prompt, f" {io}", f" {s}", f" {other}" if "{other}" in frame else None))
    return tuple(made)


def probe_result(logits: Float[Tensor, "probes vocab"], probes: tuple[Probe, ...], tokenizer: Tokenizer) -> ProbeResult:
    """What a model says, from its logits at the last token of each prompt."""
    shares = logits.double().softmax(-1)

    def of(people: list[str]) -> Float[Tensor, " probes"]:
        ids = torch.tensor([tokenizer.encode(person)[0] for person in people])
        return shares[torch.arange(len(people)), ids]

    io, s = of([p.io for p in probes]), of([p.s for p in probes])
    others = [p.bystander for p in probes if p.bystander is not None]
    bystander = float(of(others).mean()) if len(others) == len(probes) else None
    return ProbeResult(float((io > s).double().mean()), float(io.mean()), float(s.mean()), bystander)
