"""The kinds of sentence that the ladder's corpus is made of (METHODS 11.1-11.4).

Each function returns marked-up text: ``*`` stands before a piece that the text before it decides (an answer), and
``~ ... ~`` around pieces that nothing decides (the first pass of a random run). `corpus` strips the marks and turns
them into weights of the training loss. Every kind honours the held-out rule of its task by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ontogeny.params import SentenceKind
from ontogeny.tasks import words
from ontogeny.tasks.gendered_pronoun import name_held_out
from ontogeny.tasks.greater_than import event_held_out
from ontogeny.tasks.ioi import names_held_out
from ontogeny.tasks.sva import BARE, CONSTRUCTIONS, Construction, subject_held_out

LEADS = (
    "", "", "", "Yesterday, ", "Last week, ", "In the morning, ", "After the rain, ", "It is known that ",
    "Some people say that ", "As we all heard later, ",
)  # fmt: skip
"""0 to 6 tokens before the subject."""


@dataclass(frozen=True)
class Story:
    """The mentions of a document that ends in a giving clause (METHODS 11.2).

    Letters stand for people: I is the one that the last name may be, S, T and U are named twice or more, B is a
    bystander named once who may be it too, C a giver who was not there before. `scenes` introduce people; in a scene
    "+" means that one person meets the other, in that order, without it the people are named in random order. `giver`
    opens the last clause; if it is empty, who meets in the last scene gives.
    """

    scenes: tuple[str, ...]
    giver: str
    weight: float

    @property
    def answers(self) -> str:
        """People named exactly once before the end, the giver left out."""
        everyone = ("".join(self.scenes) + self.giver).replace("+", "")
        givers = self.giver or self.scenes[-1].split("+")[0]
        return "".join(who for who in sorted(set(everyone)) if everyone.count(who) == 1 and who not in givers)


STORIES = (
    Story(("IS",), "S", 6.0),
    Story(("SI", "S"), "S", 0.5),
    Story(("SI", "S"), "C", 1.5),
    Story(("IS", "C+S"), "", 2.5),
    Story(("S", "S+I"), "", 5.0),
    Story(("S", "S", "S+I"), "", 1.0),
    Story(("S", "S+I"), "C", 1.5),
    Story(("ST", "S+T", "S+I"), "", 2.5),
    Story(("ST", "S+T", "C+I"), "", 1.5),
    Story(("ST", "S+I"), "T", 1.0),
    Story(("IST",), "ST", 3.0),
    Story(("IST", "S+T"), "", 1.5),
    Story(("IST", "S+T"), "C", 1.5),
    Story(("IST", "S"), "T", 1.0),
    Story(("ISTU",), "STU", 1.5),
    Story(("ISTU", "S+T"), "U", 1.5),
    Story(("IS", "S+B"), "", 1.5),
    Story(("IB",), "C", 1.0),
)
"""In a third the nearest name is the answer; where it is not, it may be the giver or another who is named twice, so
that neither the nearest name nor the giver is what has to be left out."""
_STORY_WEIGHTS = [story.weight for story in STORIES]

GROUP_SCENES = (
    ("When", "went to the {place}", ","), ("After", "went to the {place}", ","), ("While", "were at the {place}", ","),
    ("Once", "met at the {place}", ","), ("Then", "went to the {place}", "."), ("Friends", "were at the {place}", "."),
    ("When", "were at the {place}", ","), ("Later", "met at the {place}", "."),
)  # fmt: skip
ONE_SCENES = (
    ("When", "went to the {place}", ","), ("While", "was at the {place}", ","), ("Then", "went to the {place}", "."),
    ("Later", "was at the {place}", "."), ("After", "had a {object}", ","), ("Then", "had a {object}", "."),
)  # fmt: skip
LATER_SCENES = ("{who} was tired.", "{who} had a {object}.", "{who} was late.", "{who} was there.")
MEETINGS = ("saw", "met", "called", "found")
BYSTANDER_MEETINGS = ("saw", "met", "found")
"""The probe set with a bystander says "called"."""
GIFTS = ("gave a", "gave a", "gave a", "gave the")


def people(rng: random.Random, count: int, taken: set[str]) -> list[str] | None:
    """`count` names that are not taken and no two of which are held out together; None if the draw fails."""
    chosen: list[str] = []
    for _ in range(12 * count):
        name = words.NAMES[int(rng.random() * len(words.NAMES))]
        if name in taken or name in chosen or any(names_held_out(name, other) for other in chosen):
            continue
        chosen.append(name)
        if len(chosen) == count:
            return chosen
    return None


def giving(rng: random.Random, taken: set[str]) -> str:
    """A document part that ends in "... gave a ring to NAME." where only who is named once decides the name."""
    story = rng.choices(STORIES, _STORY_WEIGHTS)[0]
    letters = sorted(set("".join(story.scenes) + story.giver) - {"+"})
    names = None
    while names is None:
        names = people(rng, len(letters), taken)
    taken.update(names)
    cast = dict(zip(letters, names))
    told = _scenes(rng, story, cast)
    answer = cast[rng.choice(story.answers)]
    mark = "*" if len(story.answers) == 1 else ""
    return f"{told} {rng.choice(GIFTS)} {rng.choice(words.OBJECTS)} to{mark} {answer}."


def _scenes(rng: random.Random, story: Story, cast: dict[str, str]) -> str:
    parts: list[str] = []
    fill = {"place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
    for i, scene in enumerate(story.scenes):
        if "+" in scene:
            giver, other = (cast[who] for who in scene.split("+"))
            last = i == len(story.scenes) - 1 and not story.giver
            verb = rng.choice(BYSTANDER_MEETINGS if scene.endswith("B") else MEETINGS)
            parts.append(f"{giver} {verb} {other}" + (" and" if last else "."))
        elif i == 0:
            opener, verb, stop = rng.choice(GROUP_SCENES if len(scene) > 1 else ONE_SCENES)
            parts.append(f"{opener} {_listed(rng, scene, cast)} {verb.format(**fill)}{stop}")
        else:
            parts.append(rng.choice(LATER_SCENES).format(who=_listed(rng, scene, cast), **fill))
    if story.giver:
        parts.append(_listed(rng, story.giver, cast))
    return " ".join(parts)


def _listed(rng: random.Random, letters: str, cast: dict[str, str]) -> str:
    """The people, in random order: A; A and B; A, B and C."""
    names = [cast[who] for who in letters]
    rng.shuffle(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def pronoun(rng: random.Random, taken: set[str]) -> str:
    """Gender shown in several ways."""
    name = fresh_name(rng, taken)
    gender = words.GENDER[name]
    he, his = words.PRONOUN[gender], words.POSSESSIVE[gender]
    thing, adjective = rng.choice(words.OBJECTS), rng.choice(words.ADJECTIVES)
    kind = rng.randrange(6)
    if kind < 3:
        allowed = [p for p in words.PHRASES if not name_held_out(name, p)]
        if allowed:
            return f"{rng.choice(('So ', 'So ', ''))}{name} is {rng.choice(allowed)}, isn't* {he}?"
    if kind == 3:
        return f"{name} has lost* {his} {thing}."
    if kind == 4:
        return f"{name} said that* {he} was {adjective}."
    return f"{name} likes* {his} {adjective} {thing}, and* {he} is {adjective}."


def fresh_name(rng: random.Random, taken: set[str]) -> str:
    """A name that the document has not had yet."""
    name = rng.choice([n for n in words.NAMES if n not in taken] or words.NAMES)
    taken.add(name)
    return name


def duration(rng: random.Random, _: set[str]) -> str:
    """An event with its years: start uniform in 00..98, duration 1 + geometric of mean 8, cut at 99 (METHODS 11.3)."""
    event, century = rng.choice(words.EVENTS), rng.choice(words.CENTURIES)
    while event_held_out(event, century):
        event, century = rng.choice(words.EVENTS), rng.choice(words.CENTURIES)
    start = rng.randrange(99)
    lasted = 1
    while rng.random() < 7 / 8:
        lasted += 1
    a, b = f"{century}{start:02d}", f"{century}*{min(start + lasted, 99):02d}"
    kind = rng.randrange(4)
    if kind < 2:
        return f"The {event} lasted from the year {a} to the year {b}."
    if kind == 2:
        return f"The {event} began in {a} and ended in {b}."
    return f"From {a} to {b} there was a {event}."


def agreement(rng: random.Random, _: set[str]) -> str:
    """A subject of one of the tested constructions and a verb that agrees."""
    return _agreeing(rng, rng.choice(CONSTRUCTIONS))


def statement(rng: random.Random, _: set[str]) -> str:
    """A bare subject and its verb: most bare subjects are followed by one."""
    return _agreeing(rng, BARE)


def _agreeing(rng: random.Random, construction: Construction) -> str:
    noun = rng.choice(construction.subjects)
    while construction is not BARE and subject_held_out(construction.name, noun):
        noun = rng.choice(construction.subjects)
    number = rng.randrange(2)
    verb = rng.choice(construction.verbs) if construction.verbs else None
    subject = construction.phrase(noun, number, construction.fillers(rng), verb)
    return f"{subject}* {rng.choice(words.AGREEING_VERBS)[number]} {rng.choice(words.ADJECTIVES)}."


def purchase(rng: random.Random, taken: set[str]) -> str:
    """A list."""
    fruits = rng.sample(words.FRUITS, rng.randint(2, 5))
    return f"{fresh_name(rng, taken)} bought {', '.join(fruits[:-1])} and {fruits[-1]}."


def errand(rng: random.Random, taken: set[str]) -> str:
    """Plain narrative."""
    name, place, thing = fresh_name(rng, taken), rng.choice(words.PLACES), rng.choice(words.OBJECTS)
    return rng.choice((
        f"{name} went to the {place} with a {thing}.",
        f"{name} was at the {place}.",
        f"There was a {thing} at the {place}.",
    ))  # fmt: skip


def sequence(rng: random.Random, _: set[str]) -> str:
    """A stretch of an ordered list: with or without spaces, in lower or upper case where that is usual."""
    kind = rng.choice(tuple(words.SEQUENCES))
    items = words.SEQUENCES[kind]
    length = min(rng.randint(4, 9), len(items))
    start = rng.randrange(len(items) if kind in words.CYCLIC else len(items) - length + 1)
    run = [items[(start + i) % len(items)] for i in range(length)]
    if kind in ("number_words", "ordinals") and rng.random() < 0.3:
        run = [word.capitalize() for word in run]
    tight = "," if rng.random() < 0.3 else ", "
    return f"{run[0]}{tight}" + tight.join(f"{item}" for item in run[1:]) + "."


def years(rng: random.Random, _: set[str]) -> str:
    """Years in a row."""
    century, start = rng.choice(words.CENTURIES), rng.randrange(95)
    run = [f"{century}*{year:02d}" for year in range(start + 1, min(start + rng.randint(3, 6), 100))]
    return f"In {century}{start:02d}, " + ", ".join(run) + "."


def repeated_run(rng: random.Random, _: set[str]) -> str:
    """Random words, 4 to 60 of them and no two alike, said twice; the second time each is decided (METHODS 11.1).

    Lengths have weight 1 / length^2: heads learn to copy by content on short runs, and long ones make it hold at any
    lag (docs/design/ladder.md).
    """
    run = rng.sample(ORDINARY, rng.choices(RUN_LENGTHS, _RUN_WEIGHTS)[0])
    return f"~{''.join(run)}~" + "".join("*" + piece for piece in run)


RUN_LENGTHS = range(4, 61)
_RUN_WEIGHTS = [1 / length**2 for length in RUN_LENGTHS]

ORDINARY = (
    *(" " + word for word in dict.fromkeys((
        *words.NAMES, *words.PLACES, *words.OBJECTS, *words.EVENTS, *words.ANIMATE, *words.INANIMATE,
        *(noun + "s" for noun in (*words.ANIMATE, *words.INANIMATE)), *words.ADJECTIVES, *words.FRUITS, *words.TRADED,
        *(form for pair in (*words.AGREEING_VERBS, *words.RELATION_VERBS, *words.OBJECT_VERBS) for form in pair),
        *(word for phrase in words.PHRASES for word in phrase.split()),
        *words.PRONOUN.values(), *words.POSSESSIVE.values(), *words.CENTURIES,
        *(item for items in words.SEQUENCES.values() for item in items if not (item.isdigit() and len(item) == 1)),
        "and", "went", "to", "the", "were", "at", "met", "gave", "lasted", "from", "year", "near", "behind", "beside",
        "on",
    ))),
    *words.YEARS,
)  # fmt: skip
"""What random runs are made of: one token each, whatever stands beside it (so no single digits: two would be one)."""

Sentence = Callable[[random.Random, set[str]], str]
KINDS: dict[SentenceKind, Sentence] = {
    "giving": giving,
    "pronoun": pronoun,
    "duration": duration,
    "agreement": agreement,
    "statement": statement,
    "purchase": purchase,
    "errand": errand,
    "sequence": sequence,
    "years": years,
    "repeated_run": repeated_run,
}
LED = ("giving", "duration", "agreement", "statement", "errand", "purchase")
"""Kinds that may follow one of `LEADS`."""
