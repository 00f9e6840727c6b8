"""Indirect object identification (METHODS 2.1; Wang et al. 2022, frames after path_patching's).

"When John and Mary went to the store, John gave a drink to": the metric is logit(IO) - logit(S). Two orders of the
first two names ("mixed"): ABBA names IO first, BABA names S first. Held out of the corpus: pairs of names. A pair
that is held out stands together in no story of the corpus that ends in a giving clause.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, Tokenizer
from ontogeny.tasks import words
from ontogeny.tasks.base import Task, distinct, held_out, one_token_words, register

HELD_OUT_SHARE = 0.25
FRAMES = (
    "When {first} and {second} went to the {place}, {giver} gave a {object} to",
    "After {first} and {second} went to the {place}, {giver} gave a {object} to",
    "While {first} and {second} were at the {place}, {giver} gave a {object} to",
    "Once {first} and {second} met at the {place}, {giver} gave a {object} to",
    "Then {first} and {second} went to the {place}. {giver} gave a {object} to",
    "Friends {first} and {second} were at the {place}. {giver} gave a {object} to",
)
ORDERS = ("ABBA", "BABA")


def names_held_out(one: str, other: str) -> bool:
    """Whether these two names are kept from meeting in a giving document of the corpus."""
    return held_out("ioi-names-1", HELD_OUT_SHARE, *sorted((one, other)))


def draw(tokenizer: Tokenizer, count: int, rng: random.Random, corruption: str) -> Sequence[PromptPair]:
    """Pairs that go through frames and orders in turn."""
    names = one_token_words(words.NAMES, tokenizer)
    pairs = [(a, b) for a, b in combinations(names, 2) if names_held_out(a, b)]
    if len(names) < 3 or not pairs:
        raise ImpossibleRequest(
            "ioi needs at least 3 names of one token each, and a held-out pair among them; of "
            f"{len(words.NAMES)} names {len(names)} are one token of this tokenizer, with {len(pairs)} held-out pairs."
        )

    def draw_one(place: int) -> PromptPair:
        io, s = rng.sample(rng.choice(pairs), 2)
        third = rng.choice([name for name in names if name not in (io, s)])
        return pair(place % len(ORDERS), place // len(ORDERS) % len(FRAMES), io, s, third, rng, corruption)

    most = 2 * len(pairs) * len(ORDERS) * len(FRAMES) * len(words.PLACES) * len(words.OBJECTS)
    limit = f"{len(pairs)} held-out pairs of names, {len(FRAMES)} frames, {len(words.PLACES)} places"
    return distinct(draw_one, count, most, "ioi", f"{limit}, {len(words.OBJECTS)} objects")


def pair(order: int, frame: int, io: str, s: str, third: str, rng: random.Random, corruption: str) -> PromptPair:
    """One pair: ``s2_io`` puts IO in the place of the second S, ``abc`` a third name."""
    first, second = (io, s) if ORDERS[order] == "ABBA" else (s, io)
    fill = {"first": first, "second": second, "place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
    giver = {"s2_io": io, "abc": third}[corruption]
    return PromptPair(
        clean=FRAMES[frame].format(giver=s, **fill),
        corrupted=FRAMES[frame].format(giver=giver, **fill),
        correct=(" " + io,),
        incorrect=(" " + s,),
        template=f"{ORDERS[order]}-{frame}",
        slots={"IO": io, "S": s, "S2": s, "corrupted_S2": giver, "third": third, "order": ORDERS[order], **fill},
    )


IOI = register(Task("ioi", "logit_diff", 70, ("s2_io", "abc"), draw))
