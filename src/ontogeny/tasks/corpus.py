"""The ladder's corpus: documents, their tokens, and the tokenizer trained on them (METHODS 11).

A document is one to three sentences, their kinds drawn from a mix of shares. The corpus folder holds `train.txt` and
`held_out.txt` (a document a line), `tokenizer/` (a Hugging Face folder) and `tokens.safetensors` with, for the training
text, `ids`, `roles` (0 pure chance, 1 ordinary, 2 decided by the text before) and `starts` (where documents begin).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from ontogeny.params import CorpusParams, SentenceKind
from ontogeny.tasks import words
from ontogeny.tasks.sentences import KINDS, LEADS, LED
from ontogeny.tasks.tokenizer import END_OF_TEXT, PIECE, FileTokenizer, train_tokenizer

UNDECIDED, ORDINARY, DECIDED = 0, 1, 2
LONGEST = 128
"""Tokens of a document at most."""
_MARKED = re.compile(rf"[*~]|{PIECE}")


@dataclass(frozen=True)
class Document:
    """Pieces of text, one a token, and the role of each in the training loss."""

    pieces: tuple[str, ...]
    roles: bytes

    @property
    def text(self) -> str:
        """The document's text."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class TokenStream:
    """Documents as tokens, end to end; document i is ``ids[starts[i]:starts[i + 1]]`` and ends with the end-of-text
    token.
    """

    ids: Int[Tensor, " tokens"]
    roles: Int[Tensor, " tokens"]
    starts: Int[Tensor, " documents+1"]


def unmark(marked: str) -> Document:
    """Strip the marks of `sentences`."""
    found: list[str] = []
    roles = bytearray()
    role, noise = ORDINARY, False
    for piece in _MARKED.findall(marked):
        if piece == "*":
            role = DECIDED
        elif piece == "~":
            noise = not noise
        else:
            found.append(piece)
            roles.append(UNDECIDED if noise else role)
            role = ORDINARY
    return Document(tuple(found), bytes(roles))


def write_document(rng: random.Random, mix: Mapping[SentenceKind, float]) -> Document:
    """A document of one to three sentences whose kinds are drawn from `mix`; no name serves two of them."""
    kinds, weights = list(mix), list(mix.values())
    chosen = rng.choices(kinds, weights, k=rng.choices((1, 2, 3), (6, 3, 1))[0])
    if "repeated_run" in chosen:
        chosen = ["repeated_run"]
    taken: set[str] = set()
    sentences = [_lead(rng, kind, KINDS[kind](rng, taken)) for kind in chosen]
    return unmark(" ".join(sentences))


def _lead(rng: random.Random, kind: str, sentence: str) -> str:
    lead = rng.choice(LEADS) if kind in LED else ""
    if not lead:
        return sentence
    opener = sentence.split(" ", 1)[0]
    if opener in ("Then", "Later"):
        return sentence
    return lead + (sentence if opener in words.GENDER else sentence[0].lower() + sentence[1:])


def write_documents(rng: random.Random, mix: Mapping[SentenceKind, float], tokens: int) -> list[Document]:
    """Documents until there are `tokens` tokens, ends of text counted."""
    documents: list[Document] = []
    length = 0
    while length < tokens:
        document = write_document(rng, mix)
        if len(document.pieces) < LONGEST:
            documents.append(document)
            length += len(document.pieces) + 1
    return documents


def build_corpus(params: CorpusParams, directory: Path) -> dict[str, int]:
    """Write the corpus folder; returns counts (documents, tokens, vocabulary). The same params give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    train = write_documents(random.Random(f"train/{params.seed}"), params.mix, params.train_tokens)
    kept = write_documents(random.Random(f"held out/{params.seed}"), params.mix, params.held_out_tokens)
    for name, documents in (("train", train), ("held_out", kept)):
        lines = "".join(document.text + "\n" for document in documents)
        (directory / f"{name}.txt").write_text(lines, encoding="utf-8")
    tokenizer = train_tokenizer((d.text for d in train), lexicon(), directory / "tokenizer")
    stream = to_stream(train, tokenizer.ids())
    save_file({"ids": stream.ids, "roles": stream.roles, "starts": stream.starts}, directory / "tokens.safetensors")
    counts = {
        "documents": len(train),
        "tokens": len(stream.ids),
        "decided_tokens": int((stream.roles == DECIDED).sum()),
        "held_out_documents": len(kept),
        "vocabulary": len(tokenizer.ids()),
    }
    (directory / "corpus.json").write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return counts


def lexicon() -> list[str]:
    """Words that must be tokens whatever the text: with a space before them, years' halves and lists without too."""
    listed = [item for items in words.SEQUENCES.values() for item in items]
    plain = [
        *words.NAMES, *words.PLACES, *words.OBJECTS, *words.EVENTS, *words.ANIMATE, *words.INANIMATE,
        *(noun + "s" for noun in (*words.ANIMATE, *words.INANIMATE)), *words.ADJECTIVES, *words.FRUITS, *words.TRADED,
        *(form for pair in (*words.AGREEING_VERBS, *words.RELATION_VERBS, *words.OBJECT_VERBS) for form in pair),
        *(word for phrase in words.PHRASES for word in phrase.split()), *words.PRONOUN.values(), *words.CENTURIES,
        *words.POSSESSIVE.values(), *listed,
    ]  # fmt: skip
    frames = ["When", "After", "While", "Once", "Then", "Friends", "So", "The"]
    rest = "and went to the were at met gave a lasted from year isn't that is, . near behind beside on"
    return [*(" " + word for word in plain), *words.YEARS, *listed, *frames, " " + rest]


def to_stream(documents: list[Document], ids: Mapping[str, int]) -> TokenStream:
    """Tokens of `documents`; each document is followed by the end-of-text token."""
    end = ids[END_OF_TEXT]
    flat: list[int] = []
    roles = bytearray()
    starts = [0]
    for document in documents:
        flat.extend(ids[piece] for piece in document.pieces)
        flat.append(end)
        roles += document.roles
        roles.append(ORDINARY)
        starts.append(len(flat))
    return TokenStream(
        torch.tensor(flat, dtype=torch.int16),
        torch.frombuffer(roles, dtype=torch.uint8).clone(),
        torch.tensor(starts, dtype=torch.int32),
    )


def load_stream(directory: Path) -> TokenStream:
    """The training tokens of a corpus folder."""
    tensors = load_file(directory / "tokens.safetensors")
    return TokenStream(tensors["ids"], tensors["roles"], tensors["starts"])


def load_tokenizer(directory: Path) -> FileTokenizer:
    """The tokenizer of a corpus folder."""
    return FileTokenizer(directory / "tokenizer" / "tokenizer.json")


def held_out_documents(directory: Path) -> list[str]:
    """Text that no member was trained on, a document each."""
    return (directory / "held_out.txt").read_text(encoding="utf-8").splitlines()
