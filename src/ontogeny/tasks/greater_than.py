"""Greater-than (METHODS 2.3; Hanna et al. 2023).

"The war lasted from the year 1732 to the year 17": probability of the ends 33..99 minus that of 00..32. The corrupted
prompt starts in the year 01. Held out of the corpus: (event, century) combinations, whatever the year.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, Tokenizer
from ontogeny.tasks import words
from ontogeny.tasks.base import Task, distinct, held_out, is_one_token, register

HELD_OUT_SHARE = 0.3
FRAME = "The {event} lasted from the year {century}{start} to the year {century}"
STARTS = tuple(range(2, 99))
CORRUPTED_START = 1
LEAST_YEARS = 20


def event_held_out(event: str, century: str) -> bool:
    """Whether the corpus never dates this event to this century."""
    return held_out("greater_than-1", HELD_OUT_SHARE, event, century)


def usable_years(century: str, tokenizer: Tokenizer) -> frozenset[int]:
    """Years that are the century's token and a token of two digits, without the first and the last such year.

    Empty if fewer than 20 are left (METHODS 2.3), or if the corrupted start, 01, is no such year.
    """
    valid = [year for year in range(100) if splits_in_two(century, year, tokenizer)]
    years = frozenset(valid[1:-1])
    return years if len(years) >= LEAST_YEARS and CORRUPTED_START in valid else frozenset()


def splits_in_two(century: str, year: int, tokenizer: Tokenizer) -> bool:
    """Whether " 1732" is " 17" and "32"."""
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(f" {century}{year:02d}")]
    return pieces == [f" {century}", f"{year:02d}"]


def draw(tokenizer: Tokenizer, count: int, rng: random.Random, _: str) -> Sequence[PromptPair]:
    """Pairs whose start year goes through 02..98 in turn; a year that no century can show is left out."""
    ends = sum(is_one_token(year, tokenizer) for year in words.YEARS)
    years = {century: usable_years(century, tokenizer) for century in words.CENTURIES}
    places = {
        start: [(e, c) for c in words.CENTURIES if start in years[c] for e in words.EVENTS if event_held_out(e, c)]
        for start in STARTS
    }
    starts = [start for start in STARTS if places[start]]
    if ends < len(words.YEARS) or not starts:
        counts = ", ".join(f"{century}xx {len(found)}" for century, found in years.items())
        raise ImpossibleRequest(
            "greater_than needs years that split into a century and one token of two digits: of the ends 00..99 "
            f"{ends} are one token of this tokenizer; usable start years: {counts} (at least {LEAST_YEARS} needed)."
        )

    def draw_one(place: int) -> PromptPair:
        start = starts[place % len(starts)]
        return pair(*rng.choice(places[start]), start)

    most = len(starts) * min(len(places[start]) for start in starts)
    limit = f"{len(starts)} start years in turn, each with held-out events and centuries"
    return distinct(draw_one, count, most, "greater_than", limit)


def pair(event: str, century: str, start: int) -> PromptPair:
    """One pair; correct are the ends after `start`."""
    return PromptPair(
        clean=FRAME.format(event=event, century=century, start=words.YEARS[start]),
        corrupted=FRAME.format(event=event, century=century, start=words.YEARS[CORRUPTED_START]),
        correct=words.YEARS[start + 1 :],
        incorrect=words.YEARS[: start + 1],
        template="lasted-from",
        slots={"event": event, "XX": century, "YY": words.YEARS[start], "corrupted_YY": words.YEARS[CORRUPTED_START]},
    )


GREATER_THAN = register(Task("greater_than", "prob_diff", 200, ("start_01",), draw))
