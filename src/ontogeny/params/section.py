"""What every section of params.yaml is, and the kinds of numbers in them."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
T = TypeVar("T")
Choice = Annotated[tuple[T, ...], Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml: immutable, and it refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
