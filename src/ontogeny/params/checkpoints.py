"""Section `checkpoints`: how a ladder is trained, or where other checkpoints are and which are analysed for what."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ontogeny.core.schedule import Analysis, Schedule
from ontogeny.params.section import Fraction, Section


class ScaleParams(Section):
    """One size of the ladder."""

    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    d_model: Annotated[int, Field(ge=8)]


class CheckpointsParams(Section):
    """Training of the ladder (METHODS 11.5-11.6)."""

    scales: dict[str, ScaleParams]
    rotary: Fraction = 1.0
    """Share of each head that turns with position. Heads here are as wide as what turns in Pythia's (16 of 64)."""
    context: Annotated[int, Field(ge=128)] = 128
    """Tokens in a row; a row holds whole documents, and none attends to another."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Rows in a step."""
    steps: Annotated[int, Field(ge=1)] = 2048
    optimiser: Literal["adamw", "muon"] = "muon"
    """`muon`: Muon for the matrices inside the blocks, AdamW for the rest."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.004
    """AdamW's at `reference_width`."""
    muon_learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """Muon's, at every width: its updates are of unit scale."""
    reference_width: Annotated[int, Field(ge=1)] = 96
    width_exponent: float = -0.5
    """AdamW's learning rate at width d is ``learning_rate * (d / reference_width) ** width_exponent``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Fraction = 0.03
    """Share of the steps over which the learning rate rises from 0 ..."""
    decay: Fraction = 0.4
    """... and share at the end over which it falls linearly to `final_rate` of its height."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    undecided_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight in the loss of tokens that are pure chance (the first pass of a random run) ..."""
    decided_weight: Annotated[float, Field(gt=0)] = 5.0
    """... and of those that the text before decides (agreeing verbs, receivers, end years); all others weigh 1."""
    first_steps: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 8, 64)
    per_octave: Annotated[int, Field(ge=1)] = 4
    """Checkpoints an octave after `first_steps` ..."""
    even_from: Fraction = 0.25
    """... until this share of the steps, when all tasks are learnt; then `even_count` checkpoints evenly to the end."""
    even_count: Annotated[int, Field(ge=0)] = 10
    save_every: Annotated[int, Field(ge=1)] = 200
    """Steps between saves of the training state; in no result."""

    @model_validator(mode="after")
    def _heads_can_turn(self) -> Self:
        for name, scale in self.scales.items():
            turning = scale.d_model / scale.heads * self.rotary
            if scale.d_model % scale.heads or turning % 2:
                raise ValueError(
                    f"scale {name!r}: heads must divide d_model, and an even number of dimensions must turn in each "
                    f"(d_model / heads x rotary); got {scale.d_model} / {scale.heads} x {self.rotary:g}"
                )
        return self


class CoverageParams(Section):
    """Which checkpoints are analysed for what: a schedule each (`core/schedule.py`), by name or as a list of steps."""

    behaviour: Schedule = "all"
    circuits: Schedule = "all"
    """Edge scores, circuits and their stability."""
    algorithm: Schedule = "all"
    """What every head does, what that says of the circuits, and the algorithm of IOI; brings the circuits with it."""

    @property
    def schedules(self) -> dict[Analysis, Schedule]:
        """By analysis."""
        return {"behaviour": self.behaviour, "circuits": self.circuits, "algorithm": self.algorithm}


class FollowedParams(Section):
    """What the sections `checkpoints` of suites that are not trained here have in common."""

    tokens_per_step: Annotated[int, Field(ge=1)]
    """Tokens of training in a step; Pythia: 2,097,152."""
    coverage: CoverageParams = CoverageParams()
    members: dict[str, CoverageParams] = {}
    """Members that are covered otherwise."""

    def coverage_of(self, member: str) -> CoverageParams:
        """Which of a member's checkpoints are analysed for what."""
        return self.members.get(member, self.coverage)


class HubParams(FollowedParams):
    """Section `checkpoints` of a hub suite: revisions of repositories that carry step numbers (METHODS 1.2, 1.4)."""

    family: Literal["pythia"] | None = None
    """`pythia`: members are sizes and seeds of Pythia, and their repositories are known."""
    repositories: dict[str, str] = {}
    """Member -> repository, for members that the family does not know."""
    revisions: str = "step{N}"
    """Name of a checkpoint's revision: with {N} for the step, or a regular expression with one group, the step."""

    @model_validator(mode="after")
    def _revisions_have_a_step(self) -> Self:
        step_pattern(self.revisions)
        return self


class FolderParams(FollowedParams):
    """Section `checkpoints` of a folder suite: checkpoints as the Hugging Face Trainer leaves them."""

    folders: Annotated[dict[str, str], Field(min_length=1)]
    """Member -> the folder that holds its checkpoints; relative ones from the project's root."""
    base: dict[str, str] = {}
    """Member -> the folder of the model that its training began with: step 0."""
    names: str = r"(?:checkpoint-|step)(\d+)"
    """Name of a checkpoint's folder: with {N} for the step, or a regular expression with one group, the step."""

    @model_validator(mode="after")
    def _names_have_a_step(self) -> Self:
        step_pattern(self.names)
        return self


def step_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of ``step{N}``, or of a pattern that is one: its one group is the step.

    Raises:
        ValueError: neither.
    """
    if "{N}" in pattern:
        before, _, after = pattern.partition("{N}")
        return re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(f"{pattern!r} must hold {{N}}, as in step{{N}}, or one group for it, as in step(\\d+)-.*")
    return compiled
