"""Sections `corpus` and `datasets`: what models are trained on, and what they are asked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ontogeny.params.section import Section

SentenceKind = Literal[
    "giving", "pronoun", "duration", "agreement", "statement", "purchase", "errand", "sequence", "years", "repeated_run"
]


class CorpusParams(Section):
    """The ladder's text (METHODS 11)."""

    seed: int = 0
    train_tokens: Annotated[int, Field(ge=1000)] = 4_000_000
    """Training reads the text as often as its steps need."""
    held_out_tokens: Annotated[int, Field(ge=1000)] = 50_000
    mix: dict[SentenceKind, Annotated[float, Field(ge=0)]] = {
        "giving": 0.45,
        "pronoun": 0.08,
        "duration": 0.12,
        "agreement": 0.14,
        "statement": 0.05,
        "purchase": 0.02,
        "errand": 0.03,
        "sequence": 0.04,
        "years": 0.02,
        "repeated_run": 0.12,
    }
    """Share of each kind of sentence; only the ratios count."""

    @model_validator(mode="after")
    def _something_is_said(self) -> Self:
        if not sum(self.mix.values()) > 0:
            raise ValueError("mix must give at least one kind of sentence a share above 0")
        return self


class TextParams(Section):
    """Section `corpus` of suites that are not trained here."""

    tokenizer: str
    """A folder with a tokenizer.json, or a repository on the hub: ``NAME`` or ``NAME@REVISION``. The prompts are made
    with it, and all checkpoints must have the same."""
    text: str | None = None
    """A text file, a document a line, that the models were not trained on; null: copy suppression, which needs one, is
    not measured (METHODS 6.4)."""


class DatasetsParams(Section):
    """The tasks' frozen data sets (METHODS 2)."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: int = 0
    sizes: dict[str, Annotated[int, Field(ge=2)]] = {}
    """Examples in each of the three splits; a task that is not named takes its published size."""
    corruptions: dict[str, str] = {}
    """A task that is not named takes its default corruption."""
