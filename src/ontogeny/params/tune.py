"""Section `tune`: which settings are tried, and where."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from ontogeny.params.analyse import Method, Rule, SelectionName
from ontogeny.params.section import Choice, Fraction, Section

CHECKPOINT = re.compile(r"^(?P<member>[a-z0-9][a-z0-9._]*-s\d+)@(?P<moment>last|\d+|\d{1,3}%)$")


class SpaceParams(Section):
    """What a search for settings may choose from (names as in `attribution` and `search`)."""

    method: Choice[Method] = ("eap", "eap_ig")
    rule: Choice[Rule] = ("right", "midpoint")
    steps: Choice[Annotated[int, Field(ge=1, le=1000)]] = (2, 5, 30)
    selection: Choice[SelectionName] = ("greedy",)
    threshold: Choice[Fraction] = (0.7, 0.8, 0.85, 0.9)
    """tau on `discover`; `ontogeny tune run` may also try values between the least and the largest."""
    examples: Choice[Fraction] = (0.25, 1.0)
    """Share of the prompts of `discover`."""

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        for name in type(self).model_fields:
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} names a value twice")
        return self


class TruthParams(Section):
    """`exact` scores that m is judged against."""

    up_to_edges: Annotated[int, Field(ge=0)] = 5000
    """Only in graphs of at most so many edges: it takes a forward pass an edge."""
    examples: Annotated[int, Field(ge=2)] = 70
    """Prompts of `discover` at most."""
    top: Fraction = 0.05
    """Share of the edges whose overlap is looked at."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Steps are enough when their Spearman is surely within this of the largest m's."""


class TuneResamplingParams(Section):
    """Bootstrap over prompts of everything that tuning measures."""

    resamples: Annotated[int, Field(ge=20)] = 50
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0


class TuneParams(Section):
    """Which settings find small faithful circuits cheaply (a task at a time)."""

    checkpoints: tuple[Annotated[str, Field(pattern=CHECKPOINT.pattern)], ...]
    """`MEMBER@STEP`, `MEMBER@last`, or `MEMBER@60%`: the checkpoint nearest to that share of the member's steps. None:
    nothing is tuned."""
    target: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Faithfulness that a circuit must keep on `tune`; it is not searched, else the least threshold would win."""
    slack: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of settings whose circuits are larger than the smallest by at most this share, the cheapest is recommended."""
    seed: int = 0
    """Of the order in which prompts are used, and of the sampler."""
    space: SpaceParams = SpaceParams()
    truth: TruthParams = TruthParams()
    resampling: TuneResamplingParams = TuneResamplingParams()

    @model_validator(mode="after")
    def _no_checkpoint_twice(self) -> Self:
        if len(set(self.checkpoints)) != len(self.checkpoints):
            raise ValueError("checkpoints are named twice")
        return self
