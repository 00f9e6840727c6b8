"""Section `trajectory`: onsets, likeness, and the rules that decide the paper's claims."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ontogeny.params.section import Fraction, Section, Share


class ClaimsParams(Section):
    """Decision rules of the paper's claims, fixed before looking (METHODS 0.1)."""

    alike_octaves: Annotated[float, Field(gt=0)] = 1.0
    """C1: largest difference of two onsets that are alike."""
    alike_confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.90
    """Of intervals that must lie within a margin (C1, C2, C7, C11)."""
    role_lag: tuple[float, float] = (-2.0, 0.5)
    """C2: onset of a role minus onset of its task, octaves."""
    sets_beaten: Share = 0.95
    """C2: share of layer-matched sets of heads that ablating the role's heads must cost more than."""
    role_lost: Share = 0.5
    """C3: share of its maximum below which a head has lost its role."""
    task_holds: Share = 0.8
    """C3, C8: share of its running maximum, of its best level, from which on a task holds."""
    least_checkpoints: Annotated[int, Field(ge=4)] = 10
    """C3, C4, C6: after the last onset."""
    least_octaves: Annotated[float, Field(ge=0)] = 2.0
    """C3, C4, C6: of tokens after the last onset."""
    above_null: Share = 0.9
    """C4: share of checkpoints at which a metric exceeds its null's 95th percentile."""
    flat_points: Annotated[float, Field(gt=0)] = 5.0
    """C4: points an octave that a metric may drift and still be called flat."""
    least_sizes: Annotated[int, Field(ge=4)] = 5
    """C6: different shapes of model with a size."""
    similar_end: Share = 0.8
    """C7: share of the best scale's final level from which on another ends alike."""
    greater_than_lag: tuple[float, float] = (0.0, 1.0)
    """C11: onset of greater-than minus onset of induction, octaves."""
    mlp_share: Share = 0.5
    """C12: share of a circuit's edges that leave MLPs above which MLPs dominate."""
    least_members: Annotated[int, Field(ge=2)] = 3
    """C2, C10, C11, C12: members, the unit of replication."""


class TrajectoryParams(Section):
    """Over training (METHODS 6.6, 8.1)."""

    onset_rule: Literal["base_33", "cot_33"] = "base_33"
    onset_fraction: Fraction = 0.33
    sustain: Annotated[int, Field(ge=1)] = 2
    base_fraction: Fraction = 0.01
    """The base level is the mean over steps before this fraction of the tokens."""
    standard_errors: Annotated[float, Field(gt=0)] = 3.0
    resamples: Annotated[int, Field(ge=50)] = 400
    """Of the bootstrap of each onset."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    seed: int = 0
    ewma_alpha: Fraction = 0.5
    matched_fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05)
    matched_floor: Annotated[int, Field(ge=1)] = 20
    null_circuits: Annotated[int, Field(ge=2)] = 20
    """Random circuits, all pairs of which say how alike circuits are by chance."""
    claims: ClaimsParams = ClaimsParams()
