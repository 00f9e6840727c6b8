"""Gendered pronouns (METHODS 2.2; Mathwin et al. 2023).

"So Paul is such a good cook, isn't" -> " he"; the corrupted prompt has a name of the other gender with as many tokens.
Held out of the corpus: (name, phrase) combinations in this frame, among them all of the paper's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, Tokenizer
from ontogeny.tasks import words
from ontogeny.tasks.base import Task, held_out, is_one_token, register

HELD_OUT_SHARE = 0.5
FRAME = "So {name} is {phrase}, isn't"
PAPER_NAMES = (*words.PAPER_MALE, *words.PAPER_FEMALE)


def name_held_out(name: str, phrase: str) -> bool:
    """Whether the corpus never says this phrase of this name."""
    if name in PAPER_NAMES and phrase in words.PAPER_PHRASES:
        return True
    return held_out("gendered_pronoun-1", HELD_OUT_SHARE, name, phrase)


def draw(tokenizer: Tokenizer, count: int, rng: random.Random, _: str) -> Sequence[PromptPair]:
    """Pairs that alternate between the genders."""
    possible = combinations_for(tokenizer, words.NAMES, words.PHRASES)
    by_gender = [[c for c in possible if words.GENDER[c[0]] == gender] for gender in ("male", "female")]
    most = 2 * min(map(len, by_gender))
    if count > most:
        raise ImpossibleRequest(
            f"gendered_pronoun: {count} distinct prompts (three splits) were asked for; {len(words.NAMES)} names and "
            f"{len(words.PHRASES)} phrases give {most} for this tokenizer. Ask for splits of at most {most // 3}."
        )
    for side in by_gender:
        rng.shuffle(side)
    return [pair(*by_gender[i % 2][i // 2], possible, tokenizer, rng) for i in range(count)]


def paper_subset(tokenizer: Tokenizer, rng: random.Random, _: str) -> Sequence[PromptPair]:
    """The paper's 100 prompts: 5 phrases, 10 male and 10 female names."""
    possible = combinations_for(tokenizer, PAPER_NAMES, words.PAPER_PHRASES)
    if len(possible) < len(PAPER_NAMES) * len(words.PAPER_PHRASES):
        raise ImpossibleRequest(
            f"gendered_pronoun: the paper's subset has 100 prompts, this tokenizer can pair {len(possible)} of them."
        )
    return [pair(name, phrase, possible, tokenizer, rng) for name, phrase in possible]


def combinations_for(tokenizer: Tokenizer, names: Sequence[str], phrases: Sequence[str]) -> list[tuple[str, str]]:
    """Held-out (name, phrase) with a partner of the other gender that has as many tokens, also held out."""
    if not all(is_one_token(" " + answer, tokenizer) for answer in words.PRONOUN.values()):
        raise ImpossibleRequest("gendered_pronoun: ' he' and ' she' must be one token each of this tokenizer.")
    unknown = [name for name in names if tokenizer.decode(tokenizer.encode(" " + name)) != " " + name]
    possible = [(n, p) for n in names for p in phrases if name_held_out(n, p) and n not in unknown]
    return [(n, p) for n, p in possible if partners(n, p, possible, tokenizer)]


def partners(name: str, phrase: str, possible: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[str]:
    """Names of the other gender and the same token length that are possible with `phrase`."""
    length = len(tokenizer.encode(" " + name))
    return [
        other
        for other, its in possible
        if its == phrase and words.GENDER[other] != words.GENDER[name] and len(tokenizer.encode(" " + other)) == length
    ]


def pair(
    name: str, phrase: str, possible: Sequence[tuple[str, str]], tokenizer: Tokenizer, rng: random.Random
) -> PromptPair:
    """One pair with a random partner."""
    other = rng.choice(partners(name, phrase, possible, tokenizer))
    gender = words.GENDER[name]
    return PromptPair(
        clean=FRAME.format(name=name, phrase=phrase),
        corrupted=FRAME.format(name=other, phrase=phrase),
        correct=(" " + words.PRONOUN[gender],),
        incorrect=(" " + words.PRONOUN[words.GENDER[other]],),
        template=f"{gender}-{words.PHRASES.index(phrase)}",
        slots={"name": name, "corrupted_name": other, "gender": gender, "phrase": phrase},
    )


GENDERED_PRONOUN = register(
    Task("gendered_pronoun", "logit_diff", 70, ("other_gender",), draw, {"paper": paper_subset})
)
