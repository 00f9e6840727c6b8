"""Section `suite`: which models are followed."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ontogeny.core.errors import OntogenyError
from ontogeny.params.section import Section

MEMBER = re.compile(r"^(?P<scale>[a-z0-9][a-z0-9._]*)-s(?P<seed>\d+)$")


class SuiteParams(Section):
    """Which models are followed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "ladder"
    source: Literal["ladder", "hub", "folder"] = "ladder"
    """Where the checkpoints come from. `ladder`: they are trained here; `hub`: revisions of repositories on the Hugging
    Face hub; `folder`: folders of Hugging Face checkpoints on this machine."""
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    """`scale-sN`: the scale (of a ladder, a key of `checkpoints.scales`) and the seed of its weights and data order."""

    @model_validator(mode="after")
    def _members_are_well_formed(self) -> Self:
        for member in self.members:
            if not MEMBER.match(member):
                raise ValueError(f"member {member!r} is not of the form scale-sN, e.g. small-s0")
        if len(set(self.members)) != len(self.members):
            raise ValueError("members are named twice")
        return self


def split_member(member: str) -> tuple[str, int]:
    """Scale and seed of a member's name: ``small-s0`` -> ``("small", 0)``."""
    match = MEMBER.match(member)
    if match is None:
        raise OntogenyError(f"Member {member!r} is not of the form scale-sN, e.g. small-s0.")
    return match["scale"], int(match["seed"])
