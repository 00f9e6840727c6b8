"""Section `transfer`: circuits in other models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ontogeny.params.section import Section


class TransferParams(Section):
    """Circuits and heads taken elsewhere (METHODS 8.2, 0.1 C2)."""

    anchors: Annotated[int, Field(ge=1, le=64)] = 8
    """Checkpoints, at most, whose circuits are evaluated at each other: the last, and those nearest to ..."""
    octaves: Annotated[float, Field(gt=0)] = 0.5
    """... so many octaves of training before it, twice as many, and so on."""
    random_matchings: Annotated[int, Field(ge=1)] = 5
    """Shuffles of the heads within layers: what a carried circuit is compared with."""
    ablated_anchors: Annotated[int, Field(ge=0)] = 3
    """At the last so many anchors a role's heads are ablated ..."""
    ablated_sets: Annotated[int, Field(ge=100)] = 100
    """... beside so many other sets of heads of the same layers (fewer where there are no more)."""
    seed: int = 0
