"""What a task is, and the list of those there are (METHODS 2).

A new task is one file that builds a `Task` and hands it to `register`, plus its import in `ontogeny.tasks`; the
contract suite then runs on it unchanged. A task draws prompt pairs for *any* tokenizer from the combinations that
`held_out` keeps away from the ladder's corpus.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import SPLITS, Metric, PromptPair, Split, TaskDataset, Tokenizer, tokenize

Draw = Callable[[Tokenizer, int, random.Random, str], Sequence[PromptPair]]


@dataclass(frozen=True)
class Task:
    """A family of prompt pairs and the metric that scores them."""

    name: str
    metric: Metric
    size: int
    """Examples in each split, as published (METHODS 2)."""
    corruptions: tuple[str, ...]
    """Ways to corrupt a prompt; the first is the default."""
    draw: Draw
    """``draw(tokenizer, count, rng, corruption)``: `count` pairs with distinct clean prompts, balanced in order so
    that any long run of them is balanced too, or `ImpossibleRequest`."""
    subsets: Mapping[str, Callable[[Tokenizer, random.Random, str], Sequence[PromptPair]]] = field(default_factory=dict)
    """Named fixed sets with a `discover` split only, e.g. the paper's 100 pronoun prompts."""

    def generate(
        self, tokenizer: Tokenizer, size: int | None = None, seed: int = 0, corruption: str | None = None
    ) -> TaskDataset:
        """Three splits of `size` examples each, disjoint in their clean prompts.

        The same arguments give the same data set in every process.

        Raises:
            ImpossibleRequest: this tokenizer or this size cannot be served; the message gives reason and counts.
        """
        size = self.size if size is None else size
        corruption = self._known_corruption(corruption)
        if size < 1:
            raise ImpossibleRequest(f"{self.name}: a split of {size} examples was asked for; ask for at least 1.")
        rng = random.Random(f"{self.name}/{corruption}/{seed}")
        pairs = list(self.draw(tokenizer, size * len(SPLITS), rng, corruption))
        splits = {split: tuple(pairs[i * size : (i + 1) * size]) for i, split in enumerate(SPLITS)}
        return self._frozen(tokenizer, corruption, seed, splits)

    def generate_subset(
        self, name: str, tokenizer: Tokenizer, seed: int = 0, corruption: str | None = None
    ) -> TaskDataset:
        """A fixed set of prompts as the `discover` split, without the other two."""
        if name not in self.subsets:
            raise ImpossibleRequest(f"{self.name} has no subset {name!r}; it has: {sorted(self.subsets) or 'none'}.")
        corruption = self._known_corruption(corruption)
        rng = random.Random(f"{self.name}/{name}/{corruption}/{seed}")
        pairs = tuple(self.subsets[name](tokenizer, rng, corruption))
        return self._frozen(tokenizer, corruption, seed, {"discover": pairs})

    def _known_corruption(self, corruption: str | None) -> str:
        corruption = self.corruptions[0] if corruption is None else corruption
        if corruption not in self.corruptions:
            raise ImpossibleRequest(
                f"{self.name} has no corruption {corruption!r}; choose one of {', '.join(self.corruptions)}."
            )
        return corruption

    def _frozen(
        self, tokenizer: Tokenizer, corruption: str, seed: int, splits: Mapping[Split, tuple[PromptPair, ...]]
    ) -> TaskDataset:
        for pairs in splits.values():
            tokenize(pairs, self.metric, tokenizer)
        return TaskDataset(self.name, self.metric, corruption, seed, tokenizer.digest, splits)


_TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make `task` known by its name."""
    if task.name in _TASKS:
        raise ValueError(f"A task named {task.name!r} is registered already.")
    _TASKS[task.name] = task
    return task


def task_names() -> tuple[str, ...]:
    """Names of all tasks, in order of registration."""
    return tuple(_TASKS)


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ImpossibleRequest: there is none.
    """
    if name not in _TASKS:
        raise ImpossibleRequest(f"There is no task {name!r}; choose from {', '.join(_TASKS)}.")
    return _TASKS[name]


def held_out(rule: str, share: float, *parts: str) -> bool:
    """Whether a combination of words is kept away from the corpus: a seeded rule on strings, `rule` being the seed.

    The same in every process and on every machine; about `share` of all combinations are held out.
    """
    digest = hashlib.sha256("\x1f".join((rule, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def is_one_token(text: str, tokenizer: Tokenizer) -> bool:
    """Whether `text` is exactly one token, and that token is no stand-in for unknown text."""
    ids = tokenizer.encode(text)
    return len(ids) == 1 and tokenizer.decode(ids) == text


def one_token_words(words: Iterable[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    """The words that are one token with a leading space."""
    return tuple(word for word in words if is_one_token(" " + word, tokenizer))


def distinct(
    draw_one: Callable[[int], PromptPair | None], count: int, most: int, task: str, why: str
) -> list[PromptPair]:
    """`count` pairs with distinct clean prompts; `draw_one(i)` proposes one for place i, or None.

    Raises:
        ImpossibleRequest: more than `most` are asked for, an upper bound of what there is, or a place stays empty after
            200 proposals; `why` says what limits the task.
    """
    if count > most:
        raise ImpossibleRequest(
            f"{task}: {count} distinct prompts (three splits) were asked for, but there are at most {most}: {why}. "
            f"Ask for splits of at most {most // len(SPLITS)}."
        )
    pairs: list[PromptPair] = []
    seen: set[str] = set()
    while len(pairs) < count:
        for _ in range(200):
            pair = draw_one(len(pairs))
            if pair is not None and pair.clean not in seen:
                break
        else:
            raise ImpossibleRequest(
                f"{task}: {count} distinct prompts (three splits) were asked for, but only {len(pairs)} could be "
                f"drawn: {why}. Ask for fewer examples."
            )
        seen.add(pair.clean)
        pairs.append(pair)
    return pairs
