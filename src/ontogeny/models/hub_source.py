"""Revisions of repositories on a Hugging Face hub as a source of checkpoints (METHODS 1.2-1.5).

What there is is resolved once, to commits, and kept in `.cache/pins`; `data/checkpoints/MEMBER` names the commits and
the hashes of all files. Checkpoints come to this machine when they are opened, or ahead of that by a thread, and go
again when the disk budget needs their place.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.core.schedule import Analysis, choose_anchors, coverage
from ontogeny.models.checkpoints import Forecast, register_source
from ontogeny.models.hub import (
    HubFile,
    Pin,
    Pins,
    config_digest,
    load_pins,
    resolve_revisions,
    resolve_trees,
    small_file,
)
from ontogeny.models.hub_cache import HubCache, NoRoom, git_hash
from ontogeny.models.pythia import repository as pythia_repository
from ontogeny.params import HubParams, Params, TextParams, TransferParams, split_member, step_pattern
from ontogeny.tasks.tokenizer import same_tokenizer

log = logging.getLogger(__name__)
PINS = "pins.json"


@dataclass(frozen=True)
class HubSource:
    """Fetches the checkpoints of a suite from a hub."""

    suite: str
    members: tuple[str, ...]
    settings: HubParams = field(hash=False)
    tokenizer: str
    """Folder or repository of the study's tokenizer."""
    study: Path
    project: Path
    budget: int | None
    """Bytes of checkpoints on the disk."""
    transfer: TransferParams
    """Which checkpoints will be needed again."""
    ahead_by: int
    """Checkpoints that may lie ready before they are opened."""

    @property
    def cache(self) -> HubCache:
        """The checkpoints on this machine."""
        return HubCache(self.budget)

    def repository(self, member: str) -> str:
        """Where a member's checkpoints are."""
        named = self.settings.repositories.get(member)
        return named if named is not None else pythia_repository(member)

    def check(self) -> None:
        """Look up every checkpoint of every member, and compare their tokenizers with the study's."""
        for member in self.members:
            self.repository(member)
        wanted = given_tokenizer(self.tokenizer, self.project)
        for member in self.members:
            _, found = self._resolved(member)
            repository = self.repository(member)
            with_tokenizer = {pin.hash_of("tokenizer.json"): pin for pin, _ in found.values()}
            for digest, pin in with_tokenizer.items():
                if digest is None or digest == git_hash(wanted):
                    continue  # The study's own is used; the same file need not be fetched to be compared.
                theirs = small_file(repository, pin.commit, "tokenizer.json")
                if not same_tokenizer(theirs, wanted):
                    raise other_tokenizer(member, f"{repository} at {pin.revision}", self.tokenizer)

    def forecast(self, member: str) -> tuple[Forecast, ...]:
        """By what the hub lists."""
        _, found = self._resolved(member)
        each = self.settings.tokens_per_step
        return tuple(
            Forecast(step, step * each, analyses, pin.bytes, self.cache.missing(pin))
            for step, (pin, analyses) in found.items()
        )

    def config(self, member: str) -> dict[str, Any]:
        """That of the last checkpoint."""
        pins, found = self._resolved(member)
        pin, _ = found[max(found)]
        return pins.configs[str(pin.hash_of("config.json"))]

    def references(self, member: str, folder: Path) -> tuple[CheckpointRef, ...]:
        """Commits and hashes; nothing is downloaded."""
        pins, found = self._resolved(member)
        folder.mkdir(parents=True, exist_ok=True)
        steps = [step for step, (_, analyses) in found.items() if "circuits" in analyses]
        again = choose_anchors(steps, self.transfer.anchors, self.transfer.octaves)
        write_pins(folder / PINS, {step: (pin, step in again) for step, (pin, _) in found.items()})
        scale, seed = split_member(member)
        return tuple(
            CheckpointRef(
                suite=self.suite,
                member=member,
                scale=scale,
                seed=seed,
                step=step,
                tokens=step * self.settings.tokens_per_step,
                path=f"{pin.repository}@{pin.revision}",
                weights_digest=pin.digest,
                commit=pin.commit,
                config_digest=config_digest(pins.configs[str(pin.hash_of("config.json"))]),
                analyses=analyses,
            )
            for step, (pin, analyses) in found.items()
        )

    @contextmanager
    def opened(self, ref: CheckpointRef) -> Iterator[Path]:
        """Its folder in the hub's cache, fetched if need be."""
        pin, kept = self._pinned(ref.member)[ref.step]
        with self.cache.opened(pin, kept=kept) as folder:
            yield folder

    @contextmanager
    def ahead(self, refs: Sequence[CheckpointRef]) -> Iterator[None]:
        """A thread that downloads while others analyse."""
        stop = threading.Event()
        thread = threading.Thread(target=self._fetch_ahead, args=(list(refs), stop), daemon=True, name="downloads")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(1.0)  # In the middle of a file it ends with us; the next run goes on from there.

    def _fetch_ahead(self, refs: Sequence[CheckpointRef], stop: threading.Event) -> None:
        """Fetch one after the other, at most `ahead_by` of them before they are opened."""
        cache, waiting = self.cache, dict[str, float]()
        for ref in refs:
            pin, kept = self._pinned(ref.member)[ref.step]
            while not stop.is_set():
                for commit in [c for c, t in waiting.items() if cache.used_at(c) != t or cache.in_use(c)]:
                    del waiting[commit]
                try:
                    if len(waiting) < self.ahead_by:
                        before = cache.used_at(pin.commit)
                        cache.fetch(pin, kept=kept, waiting=(*waiting, pin.commit))
                        waiting[pin.commit] = before
                        break
                except NoRoom:
                    pass
                except Exception as error:  # Who opens it meets the same error, and reports it.
                    log.warning("%s step %s cannot be fetched ahead: %s", ref.member, ref.step, error)
                    break
                stop.wait(0.1)

    def _pinned(self, member: str) -> dict[int, tuple[Pin, bool]]:
        """Step -> checkpoint and whether it will be needed again, as `references` wrote it."""
        return read_pins(self.study / "data" / "checkpoints" / member / PINS)

    def _resolved(self, member: str) -> tuple[Pins, dict[int, tuple[Pin, tuple[Analysis, ...]]]]:
        """Step -> checkpoint and what it is analysed for; asks the hub for what is not known yet."""
        repository = self.repository(member)
        pins = load_pins(self.project / ".cache" / "pins", repository)
        revisions = revisions_by_step(resolve_revisions(pins, repository), self.settings.revisions, repository)
        wanted = coverage(self.settings.coverage_of(member).schedules, revisions, f"{member}: {repository}")
        if not wanted:
            raise OntogenyError(f"checkpoints.coverage: no checkpoint of {member} is to be analysed.")
        resolve_trees(pins, repository, [revisions[step] for step in wanted])
        return pins, {step: (pins.pin(repository, revisions[step]), what) for step, what in wanted.items()}


def revisions_by_step(revisions: Mapping[str, str], pattern: str, repository: str) -> dict[int, str]:
    """Step -> name of the revision that `pattern` finds it in.

    Raises:
        OntogenyError: no revision carries a step, or two carry the same.
    """
    compiled = step_pattern(pattern)
    found: dict[int, str] = {}
    for name in sorted(revisions):
        match = compiled.fullmatch(name)
        if match is None:
            continue
        step = int(match[1])
        if step in found:
            raise OntogenyError(
                f"checkpoints.revisions: {pattern!r} finds step {step} of {repository} in {found[step]!r} and in "
                f"{name!r}: make it match one of them only."
            )
        found[step] = name
    if not found:
        there = ", ".join(sorted(revisions)[:8]) or "none"
        raise OntogenyError(
            f"No revision of {repository} matches checkpoints.revisions, {pattern!r}; it has: {there}. Give the "
            "pattern of those that are checkpoints, e.g. step{N}, or step(\\d+)-tokens.*"
        )
    return dict(sorted(found.items()))


def given_tokenizer(where: str, project: Path) -> Path:
    """The tokenizer.json that `corpus.tokenizer` names: of a folder, or of a repository.

    Raises:
        OntogenyError: there is none.
    """
    folder = project / where
    if folder.is_dir():
        if not (folder / "tokenizer.json").is_file():
            raise OntogenyError(
                f"corpus.tokenizer: {folder} has no tokenizer.json. Save the model's tokenizer there "
                "(tokenizer.save_pretrained), or name a folder or repository that has one."
            )
        return folder / "tokenizer.json"
    if where.startswith((".", "/", "~")) or where.count("/") > 1:
        raise OntogenyError(f"corpus.tokenizer: there is no folder {folder}.")
    repository, _, revision = where.partition("@")
    pins = load_pins(project / ".cache" / "pins", repository)
    revisions = resolve_revisions(pins, repository)
    revision = revision or "main"
    if revision not in revisions:
        raise OntogenyError(
            f"corpus.tokenizer: {repository} has no revision {revision!r}; it has: {', '.join(sorted(revisions)[:8])}."
        )
    try:
        return small_file(repository, revisions[revision], "tokenizer.json")
    except OntogenyError as error:
        raise OntogenyError(f"corpus.tokenizer: {error}") from error


def other_tokenizer(member: str, where: str, tokenizer: str) -> OntogenyError:
    """The refusal of a checkpoint whose tokenizer is not the study's."""
    return OntogenyError(
        f"{member}: the tokenizer of {where} is another than corpus.tokenizer ({tokenizer}): the same prompts would be "
        "other tokens. Follow models of different tokenizers in studies of their own."
    )


def write_pins(path: Path, pins: Mapping[int, tuple[Pin, bool]]) -> None:
    """Checkpoints by step, and whether they will be needed again, as JSON."""
    data = {str(step): asdict(pin) | {"again": again} for step, (pin, again) in pins.items()}
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_pins(path: Path) -> dict[int, tuple[Pin, bool]]:
    """Inverse of `write_pins`.

    Raises:
        OntogenyError: there is no such file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OntogenyError(f"{path} does not exist: run the stage `checkpoints` first.") from None
    return {int(step): (_pin(item), item["again"]) for step, item in data.items()}


def _pin(item: Mapping[str, Any]) -> Pin:
    files = tuple(HubFile(**file) for file in item["files"])
    return Pin(item["repository"], item["revision"], item["commit"], files)


def _make(params: Params, study: Path, project: Path) -> HubSource:
    assert isinstance(params.checkpoints, HubParams)
    assert isinstance(params.corpus, TextParams)
    execution = params.execution
    return HubSource(
        suite=params.suite.name,
        members=params.suite.members,
        settings=params.checkpoints,
        tokenizer=params.corpus.tokenizer,
        study=study,
        project=project,
        budget=None if execution.disk_gb is None else int(execution.disk_gb * 1e9),
        transfer=params.transfer,
        ahead_by=execution.n_jobs or 2,
    )


register_source("hub", _make)
