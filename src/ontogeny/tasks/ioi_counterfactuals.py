"""IOI prompts with other names in the same sentences: the two signals of S-inhibition (METHODS 2.1; Wang et al. 2022).

The second S tells two things to a head at the end: which *token* is named twice, and at which *position* among the
first two names it stood before. Each can be kept or changed apart from the other. With A = IO, B = S, X and Y others:

    set                token       position    ABB    BAB
    stranger           random      same        XYY    YXY
    token              opposite    same        BAA    ABA
    position           same        opposite    BAB    ABB
    stranger_position  random      opposite    XYX    XYY
    token_position     opposite    opposite    ABA    BAA

`control` keeps both signals and the names, and changes the place and the object: what a head says of these two alone
should do nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, TaskDataset

Signal = Literal["same", "random", "opposite"]
SIGNALS: Mapping[str, tuple[Signal, Signal]] = {
    "stranger": ("random", "same"),
    "token": ("opposite", "same"),
    "position": ("same", "opposite"),
    "stranger_position": ("random", "opposite"),
    "token_position": ("opposite", "opposite"),
}
"""Name of each set: its token signal, then its position signal."""
CONTROL = "control"


def counterfactuals(dataset: TaskDataset) -> dict[str, tuple[PromptPair, ...]]:
    """For each set, the pairs of `discover` with the counterfactual prompt in the place of the corrupted one.

    The other names, places and objects are those of the data set; the draw is seeded by the data set's seed.

    Raises:
        ImpossibleRequest: a prompt does not name three times IO or S, or there are no other names, places, objects.
    """
    pairs = dataset.splits.get("discover", ())
    rng = random.Random(f"ioi-counterfactuals/{dataset.seed}")
    names = sorted({pair.slots[slot] for pair in pairs for slot in ("IO", "S")})
    made: dict[str, list[PromptPair]] = {name: [] for name in (*SIGNALS, CONTROL)}
    for pair in pairs:
        others = [name for name in names if name not in (pair.slots["IO"], pair.slots["S"])]
        if len(others) < 2:
            raise ImpossibleRequest(f"Counterfactual prompts need four names, but the IOI data set has {len(names)}.")
        strangers = rng.sample(others, 2)
        for name, (token, position) in SIGNALS.items():
            made[name].append(replace(pair, corrupted=with_signals(pair, token, position, strangers)))
        made[CONTROL].append(replace(pair, corrupted=elsewhere(pair, pairs, rng)))
    return {name: tuple(rows) for name, rows in made.items()}


def with_signals(pair: PromptPair, token: Signal, position: Signal, strangers: Sequence[str]) -> str:
    """The clean prompt with the names that give these signals.

    Args:
        pair: what is changed; its slots `IO` and `S` name the people.
        token: who is named twice: S, a stranger, or IO.
        position: where that person stands among the first two names: as S does, or the other way about.
        strangers: two other names.
    """
    io, s = pair.slots["IO"], pair.slots["S"]
    twice, once = {"same": (s, io), "random": (strangers[1], strangers[0]), "opposite": (io, s)}[token]
    mentions = re.findall(_any_of(io, s), pair.clean)
    if sorted(mentions) != sorted((io, s, s)) or mentions[2] != s:
        raise ImpossibleRequest(
            f"An IOI prompt must name IO once and S twice, S last; {pair.clean!r} names {', '.join(mentions)}."
        )
    s_first = mentions[0] == s
    twice_first = s_first if position == "same" else not s_first
    new = iter((twice, once, twice) if twice_first else (once, twice, twice))
    return re.sub(_any_of(io, s), lambda _: next(new), pair.clean)


def elsewhere(pair: PromptPair, pairs: Sequence[PromptPair], rng: random.Random) -> str:
    """The clean prompt with another place and another object."""
    text = pair.clean
    for slot in ("place", "object"):
        own = pair.slots[slot]
        others = sorted({other.slots[slot] for other in pairs} - {own})
        if not others:
            raise ImpossibleRequest(f"The control prompts need two {slot}s, but the IOI data set has {own!r} only.")
        text = re.sub(_any_of(own), rng.choice(others), text)
    return text


def _any_of(*words: str) -> str:
    return r"\b(?:" + "|".join(re.escape(word) for word in words) + r")\b"
