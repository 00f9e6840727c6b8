"""Prompt pairs: what a task is once it has been generated, as strings and as tensors.

Strings are the truth (`PromptPair`, `TaskDataset`): they are frozen, hashed and stored. Token ids are derived from
them at load time (`tokenize`), so that one data set can be checked against any tokenizer (METHODS 2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.errors import ImpossibleRequest

Metric = Literal["logit_diff", "prob_diff"]
Split = Literal["discover", "tune", "held_out"]
SPLITS: tuple[Split, ...] = ("discover", "tune", "held_out")


class Tokenizer(Protocol):
    """What a task needs of a tokenizer: plain text to ids and back, without special tokens."""

    @property
    def digest(self) -> str:
        """Hash of the tokenizer's definition: the same text gives the same ids wherever the digest is the same."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, no special tokens added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""
        ...


@dataclass(frozen=True)
class PromptPair:
    """One clean prompt, its corrupted twin, and the answers that the metric compares."""

    clean: str
    corrupted: str
    correct: tuple[str, ...]
    """Answer strings that the clean prompt calls for, each exactly one token, leading space included."""
    incorrect: tuple[str, ...]
    """Answer strings that the corrupted prompt calls for."""
    template: str
    """Id of the frame, e.g. ``ABBA-3``."""
    slots: Mapping[str, str]
    """What filled the frame, e.g. ``{"IO": "Mary", "S": "John"}``: head roles find token positions with it."""


@dataclass(frozen=True)
class TaskDataset:
    """A frozen, hashed data set: the same prompts at every checkpoint and every scale of a suite."""

    task: str
    metric: Metric
    corruption: str
    seed: int
    tokenizer_digest: str
    splits: Mapping[Split, tuple[PromptPair, ...]]
    """Disjoint in their clean prompts, each of the task's full size (METHODS 2, 4.3)."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything above, first 32 hex digits (MLflow takes at most 36 characters)."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, object]:
        """Plain JSON values, without the digest."""
        splits = {
            name: [asdict(pair) | {"slots": dict(pair.slots)} for pair in pairs] for name, pairs in self.splits.items()
        }
        return {
            "task": self.task,
            "metric": self.metric,
            "corruption": self.corruption,
            "seed": self.seed,
            "tokenizer_digest": self.tokenizer_digest,
            "splits": splits,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> TaskDataset:
        """Inverse of `to_json`."""
        fields = dict(data)
        splits = fields.pop("splits")
        assert isinstance(splits, Mapping)
        pairs = {
            name: tuple(
                PromptPair(**(p | {"correct": tuple(p["correct"]), "incorrect": tuple(p["incorrect"])})) for p in rows
            )
            for name, rows in splits.items()
        }
        return cls(**fields, splits=pairs)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PairBatch:
    """Tokenised prompt pairs, right-padded; the metric is read at the last real position.

    The metric of example n is ``sum_k answer_weights[n, k] * f(logits[n, lengths[n]-1])[answer_ids[n, k]]`` where f is
    the identity (``logit_diff``) or the softmax over the vocabulary (``prob_diff``).
    """

    clean: Int[Tensor, "pairs tokens"]
    corrupted: Int[Tensor, "pairs tokens"]
    lengths: Int[Tensor, " pairs"]
    answer_ids: Int[Tensor, "pairs answers"]
    answer_weights: Float[Tensor, "pairs answers"]
    """+1 for a correct answer, -1 for an incorrect one, 0 for padding (float64; cast where it is used)."""
    metric: Metric
    groups: Int[Tensor, " pairs"] | None = None
    """Examples of the same number share positional means (METHODS 5.2); None: those of the same length do."""

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: slice | Int[Tensor, " rows"]) -> PairBatch:
        """The pairs at `rows`, in that order."""
        return PairBatch(
            self.clean[rows],
            self.corrupted[rows],
            self.lengths[rows],
            self.answer_ids[rows],
            self.answer_weights[rows],
            self.metric,
            None if self.groups is None else self.groups[rows],
        )


def tokenize(pairs: Sequence[PromptPair], metric: Metric, tokenizer: Tokenizer) -> PairBatch:
    """Token ids of `pairs`.

    Raises:
        ImpossibleRequest: no pairs, clean and corrupted differ in length, or an answer is not exactly one token.
    """
    if not pairs:
        raise ImpossibleRequest("No prompt pairs to tokenise: the split is empty. Ask for at least one example.")
    clean = [tokenizer.encode(pair.clean) for pair in pairs]
    corrupted = [tokenizer.encode(pair.corrupted) for pair in pairs]
    for pair, a, b in zip(pairs, clean, corrupted):
        if len(a) != len(b):
            raise ImpossibleRequest(
                f"Clean and corrupted prompts must have the same number of tokens, got {len(a)} and {len(b)}: "
                f"{pair.clean!r} / {pair.corrupted!r}. Choose words that this tokenizer splits alike."
            )
    words = {answer for pair in pairs for answer in (*pair.correct, *pair.incorrect)}
    ids = {word: single_token(word, tokenizer) for word in sorted(words)}
    answers = [[(ids[a], 1.0) for a in pair.correct] + [(ids[a], -1.0) for a in pair.incorrect] for pair in pairs]
    width, k = max(map(len, clean)), max(map(len, answers))
    pad = [row + [(0, 0.0)] * (k - len(row)) for row in answers]
    kinds = [(pair.template, len(row)) for pair, row in zip(pairs, clean)]
    numbers = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    return PairBatch(
        clean=torch.tensor([row + [0] * (width - len(row)) for row in clean]),
        corrupted=torch.tensor([row + [0] * (width - len(row)) for row in corrupted]),
        lengths=torch.tensor([len(row) for row in clean]),
        answer_ids=torch.tensor([[i for i, _ in row] for row in pad]),
        answer_weights=torch.tensor([[w for _, w in row] for row in pad], dtype=torch.float64),
        metric=metric,
        groups=torch.tensor([numbers[kind] for kind in kinds]),
    )


def single_token(text: str, tokenizer: Tokenizer) -> int:
    """Id of `text`, which must be exactly one token.

    Raises:
        ImpossibleRequest: it is not.
    """
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ImpossibleRequest(f"The answer {text!r} must be one token of this tokenizer, but is {len(ids)}: {ids}.")
    return ids[0]
