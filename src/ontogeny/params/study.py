"""A whole params.yaml, by where its suite comes from, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from ontogeny.core.errors import OntogenyError
from ontogeny.params.analyse import AnalyseParams
from ontogeny.params.checkpoints import CheckpointsParams, FolderParams, HubParams
from ontogeny.params.data import CorpusParams, DatasetsParams, TextParams
from ontogeny.params.execution import ExecutionParams, FiguresParams, TrackingParams
from ontogeny.params.section import Section
from ontogeny.params.suite import SuiteParams, split_member
from ontogeny.params.trajectory import TrajectoryParams
from ontogeny.params.transfer import TransferParams
from ontogeny.params.tune import TuneParams


class Params(Section):
    """The whole of params.yaml."""

    suite: SuiteParams
    corpus: CorpusParams | TextParams
    datasets: DatasetsParams
    checkpoints: CheckpointsParams | HubParams | FolderParams
    analyse: AnalyseParams
    transfer: TransferParams
    tune: TuneParams
    trajectory: TrajectoryParams
    figures: FiguresParams
    execution: ExecutionParams
    tracking: TrackingParams

    def starts_trained(self, member: str) -> bool:  # noqa: ARG002
        """Whether step 0 of a member is a model that was trained before."""
        return False

    def check_members(self) -> None:
        """Refuse members that the other sections do not know; what that means depends on the suite's source."""

    @model_validator(mode="after")
    def _the_device_has_the_precision(self) -> Self:
        if self.execution.device == "mps" and self.analyse.precision == "float64":
            raise ValueError("execution.device: mps has no float64; set analyse.precision: float32")
        return self

    @model_validator(mode="after")
    def _members_are_known(self) -> Self:
        self.check_members()
        for checkpoint in self.tune.checkpoints:
            if checkpoint.partition("@")[0] not in self.suite.members:
                known = ", ".join(self.suite.members)
                raise ValueError(f"tune.checkpoints: {checkpoint!r} is of no member of the suite (there are: {known})")
        return self


class LadderStudyParams(Params):
    """The params of a suite that is trained here."""

    corpus: CorpusParams
    checkpoints: CheckpointsParams

    def check_members(self) -> None:
        """Each has a scale."""
        for member in self.suite.members:
            scale, _ = split_member(member)
            if scale not in self.checkpoints.scales:
                known = ", ".join(self.checkpoints.scales)
                raise ValueError(
                    f"suite.members: {member!r} needs a scale {scale!r} in checkpoints.scales (there are: {known})"
                )


class HubStudyParams(Params):
    """The params of a suite on the hub."""

    corpus: TextParams
    checkpoints: HubParams

    def check_members(self) -> None:
        """Each has a repository, or a family that may know it."""
        _refuse_strangers(self.suite.members, "checkpoints.members", self.checkpoints.members)
        _refuse_strangers(self.suite.members, "checkpoints.repositories", self.checkpoints.repositories)
        homeless = [m for m in self.suite.members if m not in self.checkpoints.repositories]
        if self.checkpoints.family is None and homeless:
            raise ValueError(f"checkpoints.repositories: names no repository for {', '.join(homeless)}")


class FolderStudyParams(Params):
    """The params of a suite in folders."""

    corpus: TextParams
    checkpoints: FolderParams

    def starts_trained(self, member: str) -> bool:
        """If it has a base model."""
        return member in self.checkpoints.base

    def check_members(self) -> None:
        """Each has a folder."""
        for key in ("members", "folders", "base"):
            _refuse_strangers(self.suite.members, f"checkpoints.{key}", getattr(self.checkpoints, key))
        homeless = [m for m in self.suite.members if m not in self.checkpoints.folders]
        if homeless:
            raise ValueError(f"checkpoints.folders: names no folder for {', '.join(homeless)}")


STUDIES: dict[str, type[Params]] = {"ladder": LadderStudyParams, "hub": HubStudyParams, "folder": FolderStudyParams}
"""By `suite.source`."""


def _refuse_strangers(members: tuple[str, ...], key: str, named: dict[str, Any]) -> None:
    strangers = [name for name in named if name not in members]
    if strangers:
        raise ValueError(f"{key}: {', '.join(strangers)} is no member of the suite (there are: {', '.join(members)})")


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        OntogenyError: the file is missing or no YAML, a key is unknown, or a value is out of range; the message
            names each key and what is allowed.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OntogenyError(f"{path} does not exist: run from the project's root, or name a params file.") from None
    except yaml.YAMLError as error:
        raise OntogenyError(f"{path} is no valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise OntogenyError(f"{path} must hold sections such as `suite:` and `analyse:`.")
    suite = data.get("suite")
    source = suite.get("source", "ladder") if isinstance(suite, dict) else "ladder"
    study = STUDIES.get(source, LadderStudyParams) if isinstance(source, str) else LadderStudyParams
    try:
        return study.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e, study) for e in error.errors()]
        raise OntogenyError(f"{path} is refused:\n" + "\n".join(lines)) from None


def _explain(error: object, study: type[Params]) -> str:
    """One line a problem: the key, what is wrong, what was given."""
    assert isinstance(error, dict)
    key = ".".join(str(part) for part in error["loc"]) or "(file)"
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key. Allowed here: {', '.join(_keys_beside(error['loc'], study))}"
    given = "" if isinstance(error.get("input"), dict) else f" (got {error.get('input')!r})"
    return f"  {key}: {error['msg']}{given}"


def _keys_beside(location: tuple[object, ...], study: type[Params]) -> list[str]:
    """The keys that the section holding `location` knows."""
    section: type[BaseModel] = study
    place = 0
    while place < len(location) - 1:
        field = section.model_fields.get(str(location[place]))
        inner = field.annotation if field is not None else None
        if get_origin(inner) is dict:  # a section by name: checkpoints.scales.NAME
            inner, place = get_args(inner)[1], place + 1
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        section, place = inner, place + 1
    return list(section.model_fields)
