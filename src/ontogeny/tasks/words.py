"""Words of the tasks and of the ladder's corpus.

The lists are ordered and part of the data: changing one changes hashes.
"""

from __future__ import annotations

from typing import Literal

Gender = Literal["male", "female"]

PAPER_MALE = ("John", "David", "Mark", "Paul", "Ryan", "Gary", "Jack", "Sean", "Carl", "Joe")
PAPER_FEMALE = ("Mary", "Lisa", "Anna", "Sarah", "Amy", "Carol", "Karen", "Susan", "Julie", "Judy")
MALE = (*PAPER_MALE, "James", "Robert", "Michael", "William", "Peter", "Thomas", "Daniel", "George", "Kevin", "Brian")
FEMALE = (*PAPER_FEMALE, "Emily", "Laura", "Alice", "Helen", "Nancy", "Linda", "Kate", "Jane", "Rachel", "Emma")
NAMES = (*MALE, *FEMALE)
GENDER: dict[str, Gender] = {**dict.fromkeys(MALE, "male"), **dict.fromkeys(FEMALE, "female")}
PRONOUN: dict[Gender, str] = {"male": "he", "female": "she"}
POSSESSIVE: dict[Gender, str] = {"male": "his", "female": "her"}

PLACES = ("store", "garden", "school", "office", "park", "kitchen", "hospital", "station", "market", "library")
OBJECTS = ("ring", "drink", "ball", "bag", "hat", "coat", "map", "pen", "cup", "bell")

PAPER_PHRASES = (
    "such a good cook",
    "a very good athlete",
    "a really great friend",
    "such a funny person",
    "a really nice person",
)
PHRASES = (
    *PAPER_PHRASES,
    "such a kind teacher",
    "a very clever student",
    "a really good singer",
    "such a brave soldier",
    "a very careful driver",
    "a really fine writer",
    "such a patient farmer",
    "a very funny dancer",
    "a really kind nurse",
)

EVENTS = (
    "war", "siege", "plague", "reign", "famine", "strike", "voyage", "project", "study", "trial", "expedition",
    "crisis", "conflict", "campaign", "revolt", "friendship", "dynasty", "mission", "search", "quest", "alliance",
    "marriage", "tour", "battle", "rebellion", "occupation",
)  # fmt: skip
CENTURIES = ("11", "12", "13", "14", "15", "16", "17")
YEARS = tuple(f"{year:02d}" for year in range(100))

ANIMATE = (
    "author", "guard", "farmer", "teacher", "driver", "doctor", "nurse", "pilot", "officer", "singer", "writer",
    "student", "lawyer", "manager", "dancer", "soldier",
)  # fmt: skip
INANIMATE = (
    "key", "cabinet", "book", "car", "table", "chair", "door", "picture", "letter", "window", "house", "tree",
    "bottle", "lamp", "phone", "clock",
)  # fmt: skip
PREPOSITIONS = {"animate": ("near", "behind", "beside"), "inanimate": ("on", "near", "behind")}
AGREEING_VERBS = (
    ("is", "are"), ("was", "were"), ("seems", "seem"), ("looks", "look"), ("remains", "remain"),
    ("appears", "appear"), ("becomes", "become"), ("stays", "stay"),
)  # fmt: skip
RELATION_VERBS = (("likes", "like"), ("knows", "know"), ("sees", "see"), ("helps", "help"))
OBJECT_VERBS = (("writes", "write"), ("reads", "read"), ("sells", "sell"), ("buys", "buy"))
TRADED = ("books", "letters", "cars", "pictures", "clocks", "lamps")
ADJECTIVES = ("old", "new", "small", "large", "young", "quiet", "famous", "strange")
FRUITS = ("apples", "pears", "plums", "figs", "nuts", "beans", "grapes", "cherries")

SEQUENCES: dict[str, tuple[str, ...]] = {
    "numbers": tuple(str(n) for n in range(1, 31)),
    "number_words": (
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    ),
    "ordinals": (
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    ),
    "days": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "months": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
        "November", "December",
    ),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "roman": ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"),
}  # fmt: skip
"""Ordered lists (METHODS 6.2), without leading space; " I", " V" and " X" are shared by letters and roman numerals."""
CYCLIC = ("days", "months")
