"""Subject-verb agreement (METHODS 2.4; after Newman et al. 2021).

"The keys on the cabinet": probability of the verb forms that agree minus that of those that do not. The corrupted
prompt has the subject in its other number, a verb inside the subject following it. Held out of the corpus: which
nouns are subjects of which construction, so that no prompt is even the beginning of a sentence there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, Tokenizer
from ontogeny.tasks import words
from ontogeny.tasks.base import Task, distinct, held_out, one_token_words, register

HELD_OUT_SHARE = 0.3
NUMBERS = ("singular", "plural")
NOUNS = (*words.ANIMATE, *words.INANIMATE)


@dataclass(frozen=True)
class Construction:
    """A kind of subject: `frame` with {subject}, and {verb} where a verb inside it agrees with the subject."""

    name: str
    frame: str
    subjects: tuple[str, ...]
    fillers: Callable[[random.Random], dict[str, str]]
    verbs: tuple[tuple[str, str], ...] = ()

    def phrase(self, noun: str, number: int, fill: dict[str, str], verb: tuple[str, str] | None) -> str:
        """The subject in singular (0) or plural (1)."""
        return self.frame.format(subject=inflect(noun, number), verb=verb[number] if verb else "", **fill)


def inflect(noun: str, number: int) -> str:
    """Singular (0) or plural (1) of a regular noun."""
    return noun + "s" * number


def _none(_: random.Random) -> dict[str, str]:
    return {}


def _adjective(rng: random.Random) -> dict[str, str]:
    return {"adjective": rng.choice(words.ADJECTIVES)}


def _other(nouns: tuple[str, ...]) -> Callable[[random.Random], dict[str, str]]:
    return lambda rng: {"other": inflect(rng.choice(nouns), rng.randrange(2))}


def _behind(nouns: tuple[str, ...], prepositions: tuple[str, ...]) -> Callable[[random.Random], dict[str, str]]:
    return lambda rng: {**_other(nouns)(rng), "preposition": rng.choice(prepositions)}


def _clause(rng: random.Random) -> dict[str, str]:
    number = rng.randrange(2)
    return {"other": inflect(rng.choice(words.ANIMATE), number), "its": rng.choice(words.RELATION_VERBS)[number]}


def _traded(rng: random.Random) -> dict[str, str]:
    return {"object": rng.choice(words.TRADED)}


CONSTRUCTIONS = (
    Construction("simple", "The {adjective} {subject}", NOUNS, _adjective),
    Construction(
        "prep_inanimate",
        "The {subject} {preposition} the {other}",
        words.INANIMATE,
        _behind(words.INANIMATE, words.PREPOSITIONS["inanimate"]),
    ),
    Construction(
        "prep_animate",
        "The {subject} {preposition} the {other}",
        words.ANIMATE,
        _behind(words.ANIMATE, words.PREPOSITIONS["animate"]),
    ),
    Construction(
        "subject_relative",
        "The {subject} that {verb} the {other}",
        words.ANIMATE,
        _other(words.ANIMATE),
        words.RELATION_VERBS,
    ),
    Construction("object_relative", "The {subject} that the {other} {its}", words.ANIMATE, _clause),
    Construction("verb_coordination", "The {subject} {verb} {object} and", words.ANIMATE, _traded, words.OBJECT_VERBS),
)
BARE = Construction("bare", "The {subject}", NOUNS, _none)
"""Of the corpus only: "The keys" opens longer subjects too, so it could not be held out as a prompt."""


def subject_held_out(construction: str, noun: str) -> bool:
    """Whether the corpus never makes `noun` the subject of this construction."""
    return held_out("sva-1", HELD_OUT_SHARE, construction, noun)


def draw(tokenizer: Tokenizer, count: int, rng: random.Random, _: str) -> Sequence[PromptPair]:
    """Pairs that go through constructions and numbers in turn."""
    verbs = tuple(v for v in words.AGREEING_VERBS if len(one_token_words(v, tokenizer)) == 2)
    known = [n for n in NOUNS if len(one_token_words((n, inflect(n, 1)), tokenizer)) == 2]
    subjects = {c.name: [n for n in c.subjects if n in known and subject_held_out(c.name, n)] for c in CONSTRUCTIONS}
    if not verbs or not all(subjects.values()):
        counts = ", ".join(f"{name} {len(nouns)}" for name, nouns in subjects.items())
        raise ImpossibleRequest(
            f"sva needs verbs and held-out nouns whose two forms are one token each: {len(verbs)} of "
            f"{len(words.AGREEING_VERBS)} verbs are, and subjects by construction: {counts}."
        )

    def draw_one(place: int) -> PromptPair | None:
        construction = CONSTRUCTIONS[place // 2 % len(CONSTRUCTIONS)]
        noun = rng.choice(subjects[construction.name])
        made = pair(construction, noun, place % 2, verbs, rng)
        return made if len(tokenizer.encode(made.clean)) == len(tokenizer.encode(made.corrupted)) else None

    few = len(subjects["simple"]) * len(words.ADJECTIVES)
    limit = ", ".join(f"{name} {len(nouns)}" for name, nouns in subjects.items())
    most = few * len(NUMBERS) * len(CONSTRUCTIONS)
    return distinct(draw_one, count, most, "sva", f"held-out subjects by construction, in turn: {limit}")


def pair(
    construction: Construction, noun: str, number: int, verbs: Sequence[tuple[str, str]], rng: random.Random
) -> PromptPair:
    """One pair; correct are the verb forms of the subject's number."""
    fill = construction.fillers(rng)
    verb = rng.choice(construction.verbs) if construction.verbs else None
    return PromptPair(
        clean=construction.phrase(noun, number, fill, verb),
        corrupted=construction.phrase(noun, 1 - number, fill, verb),
        correct=tuple(" " + v[number] for v in verbs),
        incorrect=tuple(" " + v[1 - number] for v in verbs),
        template=construction.name,
        slots={"subject": inflect(noun, number), "number": NUMBERS[number], **fill},
    )


SVA = register(Task("sva", "prob_diff", 200, ("other_number",), draw))
