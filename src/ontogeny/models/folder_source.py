"""Folders of Hugging Face checkpoints as a source: a training or fine-tuning run as the Trainer leaves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.core.schedule import Analysis, coverage
from ontogeny.models.checkpoints import Forecast, StudyFolders, register_source, weight_files, weights_digest
from ontogeny.models.hub import config_digest
from ontogeny.models.hub_source import given_tokenizer, other_tokenizer
from ontogeny.params import FolderParams, Params, TextParams, split_member, step_pattern
from ontogeny.tasks.tokenizer import same_tokenizer


@dataclass(frozen=True)
class FolderSource:
    """Finds the checkpoints of a suite in folders, which it never changes."""

    suite: str
    members: tuple[str, ...]
    settings: FolderParams = field(hash=False)
    tokenizer: str
    """Folder or repository of the study's tokenizer."""
    study: Path
    project: Path

    def check(self) -> None:
        """Look into every folder, and compare their tokenizers with the study's."""
        wanted = given_tokenizer(self.tokenizer, self.project)
        for member in self.members:
            for folder, _ in self._found(member).values():
                _check_folder(folder)
                theirs = folder / "tokenizer.json"
                if theirs.is_file() and not same_tokenizer(theirs, wanted):
                    raise other_tokenizer(member, str(folder), self.tokenizer)

    def forecast(self, member: str) -> tuple[Forecast, ...]:
        """By the sizes of the files."""
        each = self.settings.tokens_per_step
        return tuple(
            Forecast(step, step * each, analyses, sum(file.stat().st_size for file in weight_files(folder)), 0)
            for step, (folder, analyses) in self._found(member).items()
        )

    def config(self, member: str) -> dict[str, Any]:
        """That of the last checkpoint."""
        found = self._found(member)
        return _config(found[max(found)][0])

    def references(self, member: str, folder: Path) -> tuple[CheckpointRef, ...]:  # noqa: ARG002
        """Where they are, and the hashes of their weights."""
        scale, seed = split_member(member)
        return tuple(
            CheckpointRef(
                suite=self.suite,
                member=member,
                scale=scale,
                seed=seed,
                step=step,
                tokens=step * self.settings.tokens_per_step,
                path=str(place.relative_to(self.project) if place.is_relative_to(self.project) else place),
                weights_digest=weights_digest(place),
                config_digest=config_digest(_config(place)),
                analyses=analyses,
            )
            for step, (place, analyses) in self._found(member).items()
        )

    def opened(self, ref: CheckpointRef) -> AbstractContextManager[Path]:
        """The folder itself."""
        return StudyFolders(self.project).opened(ref)

    def ahead(self, refs: Sequence[CheckpointRef]) -> AbstractContextManager[None]:  # noqa: ARG002
        """They are all there."""
        return nullcontext()

    def _found(self, member: str) -> dict[int, tuple[Path, tuple[Analysis, ...]]]:
        """Step -> folder and what it is analysed for.

        Raises:
            OntogenyError: no such folder, none of its folders carries a step, or one step is there twice.
        """
        root, pattern = self.project / self.settings.folders[member], step_pattern(self.settings.names)
        if not root.is_dir():
            raise OntogenyError(f"checkpoints.folders: {member} has no folder {root}.")
        folders: dict[int, Path] = {}
        if member in self.settings.base:
            folders[0] = self.project / self.settings.base[member]
            if not folders[0].is_dir():
                raise OntogenyError(f"checkpoints.base: {member} has no folder {folders[0]}.")
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            match = pattern.fullmatch(path.name)
            if match is not None and folders.setdefault(step := int(match[1]), path) != path:
                raise OntogenyError(f"{member}: step {step} is both {folders[step]} and {path}: take one away.")
        if not set(folders) - ({0} if member in self.settings.base else set()):
            there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
            raise OntogenyError(
                f"No folder in {root} matches checkpoints.names, {self.settings.names!r}; it holds: {there}. Give the "
                "pattern of those that are checkpoints, e.g. checkpoint-{N}."
            )
        wanted = coverage(self.settings.coverage_of(member).schedules, folders, f"{member}: {root}")
        if not wanted:
            raise OntogenyError(f"checkpoints.coverage: no checkpoint of {member} is to be analysed.")
        return {step: (folders[step], analyses) for step, analyses in wanted.items()}


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise OntogenyError(f"{folder} holds an adapter, not a model: merge it into its base model and save that.")
    if not (folder / "config.json").is_file():
        raise OntogenyError(f"{folder} has no config.json: it is no Hugging Face checkpoint.")
    if not weight_files(folder):
        raise OntogenyError(f"{folder} has no weights (*.safetensors or pytorch_model*.bin).")


def _make(params: Params, study: Path, project: Path) -> FolderSource:
    assert isinstance(params.checkpoints, FolderParams)
    assert isinstance(params.corpus, TextParams)
    suite = params.suite
    return FolderSource(suite.name, suite.members, params.checkpoints, params.corpus.tokenizer, study, project)


register_source("folder", _make)
