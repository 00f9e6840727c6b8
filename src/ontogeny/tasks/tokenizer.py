"""Tokenizers on disk, and the ladder's own: one token a word, years in two halves as Pythia splits them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
PIECE = r" ?[A-Za-z]+| ?[0-9]{1,2}|'[a-z]+|[^ ]"
"""A word or at most two digits with the space before it, the tail of "isn't", or any other character."""
_PIECES = re.compile(PIECE)


class FileTokenizer:
    """A `tokenizer.json` behind the `Tokenizer` protocol; adds no special tokens."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self._tokenizer = _parsed(content)
        self.digest = hashlib.sha256(content).hexdigest()[:32]
        """Hash of the file."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def ids(self) -> dict[str, int]:
        """The vocabulary."""
        return self._tokenizer.get_vocab()

    def ordinary_ids(self) -> list[int]:
        """Ids of the tokens that stand for text, ascending: all but the special ones."""
        special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return sorted(set(self.ids().values()) - special)


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> RustTokenizer:
    """Every checkpoint of a model brings the same file; nothing here changes a tokenizer."""
    return RustTokenizer.from_buffer(content)


def same_tokenizer(a: Path, b: Path) -> bool:
    """Whether two tokenizer.json cut every text into the same tokens, as far as their parts tell.

    What does not matter: padding and truncation, and how the file is laid out.
    """
    if a.read_bytes() == b.read_bytes():
        return True
    parts = ("model", "normalizer", "pre_tokenizer", "added_tokens")
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (a, b))
    return all(first.get(part) == second.get(part) for part in parts)


def pieces(text: str) -> list[str]:
    """`text` cut as the ladder's tokenizer cuts it; each piece is one token."""
    return _PIECES.findall(text)


def train_tokenizer(texts: Iterable[str], lexicon: Iterable[str], directory: Path) -> FileTokenizer:
    """Train the ladder's tokenizer and write it as a Hugging Face folder.

    Every piece of `texts` and `lexicon` becomes a token, the frequent ones first; anything else is `UNKNOWN`.
    `lexicon` makes the tasks' words known however short the text is.
    """
    tokenizer = RustTokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=100_000, min_frequency=0, show_progress=False, special_tokens=[END_OF_TEXT, UNKNOWN]
    )
    tokenizer.train_from_iterator([*texts, *lexicon], trainer)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    return FileTokenizer(directory / "tokenizer.json")
