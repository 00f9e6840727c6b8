"""Models whose weights are set by hand, so that what each head does is known.

All share one word-level vocabulary (names, places, objects, frames of IOI, three ordered lists), one layout of the
residual stream and one shape: a sequential GPT-2 with an unembedding of its own and positions as one-hot vectors, so
that attention can be made exact. A thing that is written into a block of the stream is taken off again in one column
that nobody reads, so that means are 0 and LayerNorm only divides.

    token      one-hot token (embedding)              previous   token before (written by a previous-token head)
    position   one-hot position                       known      token again (written by MLP 0)
    output     what the unembedding reads             inhibited  names that a name mover must not look at
    place      where a token stood before; at the last token, where a name mover must not look
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ontogeny.components import Texts
from ontogeny.core.pairs import TaskDataset
from ontogeny.core.roles import Head
from ontogeny.models.subject import Subject, subject_of
from ontogeny.tasks import get_task, words
from ontogeny.tasks.tokenizer import FileTokenizer, train_tokenizer

CONTEXT, HEADS, LAYERS = 48, 4, 3
NAMES = ("Mary", "John", "Anna", "Paul", "Emma", "Mark", "Lisa", "Jack", "Jane", "Ryan")
LISTS = ("days", "number_words", "months")
FRAME = "When After While Once Then Friends and went to the were at met gave a , ."
STRONG = 10.0
"""Gain of queries against keys: attention is all or nothing."""


@lru_cache
def tokenizer() -> FileTokenizer:
    """About 80 tokens."""
    spaced = [*NAMES, *words.PLACES, *words.OBJECTS, *(item for name in LISTS for item in words.SEQUENCES[name])]
    openers, rest = FRAME.split()[:6], FRAME.split()[6:-2]
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer([], [*openers, ",", ".", *(" " + word for word in (*rest, *spaced))], Path(folder))


@lru_cache
def vocabulary() -> int:
    return len(tokenizer().ids())


def ids(items: tuple[str, ...]) -> list[int]:
    """Tokens of words after a space."""
    return [tokenizer().encode(" " + item)[0] for item in items]


@lru_cache
def ioi(size: int = 24) -> TaskDataset:
    """IOI prompts in this vocabulary."""
    return get_task("ioi").generate(tokenizer(), size)


@dataclass(frozen=True)
class Block:
    """Columns of the residual stream."""

    start: int
    size: int


T = vocabulary()
TOKEN, POSITION, PREVIOUS = Block(0, T), Block(T, CONTEXT), Block(T + CONTEXT, T)
KNOWN, OUTPUT, INHIBITED = (Block((i + 2) * T + CONTEXT, T) for i in range(3))
REPEATED = Block(5 * T + CONTEXT, 1)
"""1 on the second mention of a name."""
PLACE = Block(5 * T + CONTEXT + 1, CONTEXT)
D_HEAD = T + CONTEXT
WIDTH = HEADS * D_HEAD
BALANCE = WIDTH - 1
"""The column that makes every mean 0."""


def read(block: Block, at: int = 0, gain: float = 1.0, only: list[int] | None = None, shift: int = 0) -> Tensor:
    """``[width, d_head]``: the block's columns into a head's dimensions from `at` on, `shift` further."""
    into = torch.zeros(WIDTH, D_HEAD, dtype=torch.float64)
    for i in range(block.size) if only is None else only:
        if i + shift < block.size:
            into[block.start + i, at + i + shift] = gain
    return into


def write(block: Block, gain: float = 1.0, mapping: dict[int, int] | None = None) -> Tensor:
    """``[d_head, width]``: a head's dimensions into the block's columns, and off the balance."""
    out = torch.zeros(D_HEAD, WIDTH, dtype=torch.float64)
    for i, j in (mapping or {i: i for i in range(block.size)}).items():
        out[i, block.start + j] = gain
        out[i, BALANCE] = -gain
    return out


class Model:
    """A GPT-2 that does nothing yet."""

    def __init__(self) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=T,
            n_positions=CONTEXT,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_inner=T,
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.hf: Any = GPT2LMHeadModel(config).double().eval().requires_grad_(False)
        for name, parameter in self.hf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        tokens, places = torch.arange(T), torch.arange(CONTEXT)
        self.hf.transformer.wte.weight[tokens, TOKEN.start + tokens] = 1.0
        self.hf.transformer.wpe.weight[places, POSITION.start + places] = 1.0
        for table in (self.hf.transformer.wte.weight, self.hf.transformer.wpe.weight):
            table[:, BALANCE] = -1.0
        self.hf.lm_head.weight[tokens, OUTPUT.start + tokens] = 1.0

    def head(
        self, at: Head, query: Tensor, key: Tensor, value: Tensor, out: Tensor, bias: Tensor | None = None
    ) -> None:
        """Set one head; `bias` is its query's."""
        layer, head = at
        attention = self.hf.transformer.h[layer].attn
        for slot, weight in enumerate((query, key, value)):
            start = slot * WIDTH + head * D_HEAD
            attention.c_attn.weight[:, start : start + D_HEAD] = weight
        if bias is not None:
            attention.c_attn.bias[head * D_HEAD : (head + 1) * D_HEAD] = bias
        attention.c_proj.weight[head * D_HEAD : (head + 1) * D_HEAD] = out

    def first_mlp(self, into: Block, gain: float, mapping: dict[int, int] | None = None) -> None:
        """MLP 0 tells each token, or the token that `mapping` makes of it, into a block."""
        mlp = self.hf.transformer.h[0].mlp
        for token in range(T):
            told = token if mapping is None else mapping.get(token)
            if told is not None:
                mlp.c_fc.weight[TOKEN.start + token, token] = 1.0
                mlp.c_proj.weight[token, into.start + told] = gain
                mlp.c_proj.weight[token, BALANCE] = -gain

    def subject(self) -> Subject:
        """The model through the usual door."""
        return subject_of(self.hf, source="a model set by hand", tokenizer=tokenizer())


@dataclass(frozen=True)
class HandSet:
    """A model and what its heads do; all other heads do nothing."""

    subject: Subject
    heads: dict[str, Head]
    """Role -> the head that plays it."""


SINK = T
"""Dimension of a head in which queries without a match find position 0."""


def one(dimension: int, gain: float = 1.0) -> Tensor:
    """A query bias in one dimension."""
    bias = torch.zeros(D_HEAD, dtype=torch.float64)
    bias[dimension] = gain
    return bias


def first_position() -> Tensor:
    """A key at position 0."""
    return read(POSITION, at=SINK, gain=STRONG, only=[0])


def write_places() -> Tensor:
    """A head's dimensions from T on into `PLACE`."""
    out = torch.zeros(D_HEAD, WIDTH, dtype=torch.float64)
    for i in range(CONTEXT):
        out[T + i, PLACE.start + i] = 0.1
        out[T + i, BALANCE] = -0.1
    return out


def previous_token(model: Model, at: Head) -> None:
    model.head(at, read(POSITION, gain=STRONG), read(POSITION, shift=1), read(TOKEN), write(PREVIOUS, 0.1))


def duplicate_token(model: Model, at: Head) -> None:
    """To the earlier occurrence, never to itself, else to position 0; tells which tokens are names said again, and
    where each token stood before.
    """
    tells = write_places()
    tells[ids(NAMES), REPEATED.start] = 0.1
    tells[ids(NAMES), BALANCE] = -0.1
    query = read(TOKEN, gain=STRONG) + read(POSITION, at=T, gain=-4.0 * STRONG)
    key = read(TOKEN) + read(POSITION, at=T)
    model.head(at, query, key, read(TOKEN) + read(POSITION, at=T), tells, one(SINK, 4.0 * STRONG))


def induction(model: Model, at: Head) -> None:
    model.head(at, read(TOKEN, gain=STRONG), read(PREVIOUS, gain=2.0), read(TOKEN), write(OUTPUT, 0.3))


def copying(model: Model, at: Head) -> None:
    """To names that are not inhibited, least of all where it must not look; says them."""
    query = read(INHIBITED, gain=-4.0 * STRONG) + read(PLACE, at=T, gain=-8.0 * STRONG)
    name, said = read(TOKEN, only=ids(NAMES)), write(OUTPUT, 0.3)
    key = name + read(POSITION, at=T)
    model.head(at, query, key, name, said, sum((one(i, 20.0 * STRONG) for i in ids(NAMES)), one(0, 0.0)))


def suppressing(model: Model, at: Head) -> None:
    """To what is about to be said, else to position 0; unsays it."""
    start = tokenizer().encode("When")[0]
    said = [token for token in range(T) if token != start]
    query, key = read(OUTPUT, gain=STRONG), read(TOKEN) + first_position()
    model.head(at, query, key, read(TOKEN, only=said), write(OUTPUT, -0.3), one(SINK, 1.0))


def successor_of() -> dict[int, int]:
    """Token -> the next of its list; the days and months go round."""
    found = {}
    for name in LISTS:
        row = ids(words.SEQUENCES[name])
        found |= dict(itertools.pairwise(row)) | ({row[-1]: row[0]} if name in words.CYCLIC else {})
    return found


def successor(model: Model, at: Head) -> None:
    """At itself: says what comes after."""
    model.first_mlp(KNOWN, 0.1)
    query, key = read(POSITION, gain=STRONG), read(POSITION)
    model.head(at, query, key, read(KNOWN), write(OUTPUT, 0.3, successor_of()))


def s_inhibition(model: Model, at: Head) -> None:
    """To names said again, else to position 0; tells which, and where they stood before."""
    key = read(REPEATED, gain=STRONG) + first_position()
    bias = one(0, 20.0 * STRONG) + one(SINK, 1.0)
    names = ids(NAMES)
    value, tells = read(TOKEN, only=names) + read(PLACE, at=T), write(INHIBITED, 0.1) + write_places()
    model.head(at, torch.zeros_like(key), key, value, tells, bias)


@lru_cache
def induction_pair() -> HandSet:
    model = Model()
    previous_token(model, (0, 1))
    induction(model, (1, 2))
    return HandSet(model.subject(), {"previous_token": (0, 1), "induction": (1, 2)})


@lru_cache
def duplicate_token_model() -> HandSet:
    model = Model()
    duplicate_token(model, (0, 2))
    return HandSet(model.subject(), {"duplicate_token": (0, 2)})


@lru_cache
def copying_model() -> HandSet:
    model = Model()
    copying(model, (1, 3))
    return HandSet(model.subject(), {"name_mover": (1, 3)})


def bigram() -> dict[int, int]:
    """Token -> the one that MLP 0 of the suppressing model expects after it: no list, no copy."""
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(T, generator=generator).tolist()
    return dict(zip(order, order[1:] + order[:1]))


@lru_cache
def suppressing_model() -> HandSet:
    model = Model()
    model.first_mlp(OUTPUT, 0.1, bigram())
    suppressing(model, (2, 0))
    return HandSet(model.subject(), {"copy_suppression": (2, 0)})


@lru_cache
def successor_model() -> HandSet:
    model = Model()
    successor(model, (1, 0))
    return HandSet(model.subject(), {"successor": (1, 0)})


@lru_cache
def s_inhibition_path() -> HandSet:
    """Duplicate-token head -> S-inhibition head -> name mover: it solves IOI."""
    model = Model()
    duplicate_token(model, (0, 0))
    s_inhibition(model, (1, 1))
    copying(model, (2, 2))
    return HandSet(model.subject(), {"duplicate_token": (0, 0), "s_inhibition": (1, 1), "name_mover": (2, 2)})


HAND_SET = (
    induction_pair, duplicate_token_model, copying_model, suppressing_model, successor_model, s_inhibition_path,
)  # fmt: skip


@lru_cache
def held_out_text(documents: int = 60) -> Texts:
    """Random tokens after the same first word."""
    generator = torch.Generator().manual_seed(5)
    ordinary = torch.tensor(tokenizer().ordinary_ids())
    tokens = ordinary[torch.randint(len(ordinary), (documents, CONTEXT), generator=generator)]
    tokens[:, 0] = tokenizer().encode("When")[0]
    return Texts(tokens, torch.full((documents,), CONTEXT))
