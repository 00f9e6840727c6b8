"""What is where on a Hugging Face hub: revisions, commits and files, and what its answers mean for the user.

The hub's own client does the talking, so that HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE count as everywhere
(HF_ENDPOINT when it is first imported: inside these functions). A commit is resolved once: `pin` keeps what it found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ontogeny.core.errors import OntogenyError

log = logging.getLogger(__name__)
T = TypeVar("T")

TRIES = 5
WAIT = 1.0
"""Seconds before the second try, doubled for each further one."""
_AT_ONCE = 8
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
)
"""Names of files with weights; the first kind that is there is taken."""
_INDEX = re.compile(r"(model\.safetensors|pytorch_model\.bin)\.index\.json")
_SMALL = ("config.json", "tokenizer.json")
_IN_NO_NUMBER = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache", "architectures")


class Unreachable(OntogenyError):
    """The hub does not answer, or must not be asked."""


@dataclass(frozen=True)
class HubFile:
    """A file of a commit."""

    name: str
    bytes: int
    hash: str
    """SHA-256 of a large file, git's object id of a small one."""
    large: bool
    """Kept as a large file (LFS, Xet): its hash is that of its content."""


@dataclass(frozen=True)
class Pin:
    """A checkpoint on the hub, once and for all."""

    repository: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]
    """What loading it needs."""

    @property
    def weights(self) -> tuple[HubFile, ...]:
        """The files with weights."""
        return tuple(f for f in self.files if any(kind.fullmatch(f.name) for kind in _WEIGHTS))

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of the weights' files, first 32 hex digits: known before anything is downloaded."""
        text = "".join(f"{file.name} {file.hash}\n" for file in sorted(self.weights, key=lambda f: f.name))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def hash_of(self, name: str) -> str | None:
        """Hash of a file, if it is there."""
        return next((file.hash for file in self.files if file.name == name), None)


@dataclass
class Pins:
    """All that was ever resolved of a repository; a file under `.cache/pins`."""

    path: Path
    revisions: dict[str, str] = field(default_factory=dict)
    """Revision -> commit, of all branches and tags."""
    trees: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Commit -> its files that matter."""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Hash of a config.json -> what it says."""

    def pin(self, repository: str, revision: str) -> Pin:
        """A revision whose tree is known."""
        commit = self.revisions[revision]
        return Pin(repository, revision, commit, tuple(HubFile(**file) for file in self.trees[commit]))

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {"revisions": self.revisions, "trees": self.trees, "configs": self.configs}
        temporary = self.path.with_suffix(f".{time.monotonic_ns()}")
        temporary.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(self.path)


def load_pins(folder: Path, repository: str) -> Pins:
    """What is known of a repository of the hub in use; empty if nothing is."""
    from huggingface_hub import constants

    host = re.sub(r"\W+", "-", constants.ENDPOINT.partition("://")[2])
    path = folder / host / f"{repository.replace('/', '--')}.json"
    return Pins(path, **json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Pins(path)


def resolve_revisions(pins: Pins, repository: str) -> Mapping[str, str]:
    """Revision -> commit, asked of the hub if it is not known.

    Raises:
        OntogenyError: no such repository, or the hub does not answer.
    """
    from huggingface_hub import HfApi

    if not pins.revisions:
        refs = asked(repository, lambda: HfApi().list_repo_refs(repository))
        pins.revisions = {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}
        pins.save()
    return pins.revisions


def resolve_trees(pins: Pins, repository: str, revisions: Iterable[str]) -> None:
    """Learn the files of revisions, and what their config.json say; known ones are not asked for.

    Raises:
        OntogenyError: a revision has no weights or no config.json, or the hub does not answer.
    """
    unknown = [revision for revision in revisions if pins.revisions[revision] not in pins.trees]
    if not unknown:
        return
    log.info("%s: looking up %d revisions.", repository, len(unknown))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for revision, files in zip(unknown, threads.map(lambda r: _files(repository, r, pins.revisions[r]), unknown)):
            pins.trees[pins.revisions[revision]] = [asdict(file) for file in files]
    configs: dict[str, str] = {}
    for revision in unknown:
        found = pins.pin(repository, revision).hash_of("config.json")
        if found is not None and found not in pins.configs:
            configs[found] = pins.revisions[revision]
    for found, commit in configs.items():
        path = small_file(repository, commit, "config.json")
        pins.configs[found] = json.loads(path.read_text(encoding="utf-8"))
    pins.save()


def small_file(repository: str, commit: str, name: str) -> Path:
    """A small file of a commit, in the hub's cache.

    Raises:
        OntogenyError: it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    return Path(asked(repository, lambda: hf_hub_download(repository, name, revision=commit)))


def _files(repository: str, revision: str, commit: str) -> tuple[HubFile, ...]:
    """The files that loading a commit needs."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    entries = asked(repository, lambda: list(HfApi().list_repo_tree(repository, revision=commit)))
    every = [
        HubFile(e.path, e.size, e.lfs.sha256 if e.lfs else e.blob_id, e.lfs is not None)
        for e in entries
        if isinstance(e, RepoFile)
    ]
    kinds = [[file for file in every if kind.fullmatch(file.name)] for kind in _WEIGHTS]
    weights = next((files for files in kinds if files), [])
    names = {file.name for file in every}
    missing = "config.json" if "config.json" not in names else "weights (*.safetensors or pytorch_model*.bin)"
    if not weights or "config.json" not in names:
        raise OntogenyError(
            f"{repository} at {revision} has no {missing}; it holds: {', '.join(sorted(names)[:12])}. It is no "
            "checkpoint of a Hugging Face model: take its step out of checkpoints.coverage."
        )
    suffix = Path(weights[0].name).suffix
    small = [f for f in every if f.name in _SMALL or (_INDEX.fullmatch(f.name) and suffix in f.name)]
    return tuple(sorted([*weights, *small], key=lambda file: file.name))


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of what a config.json says about the numbers of its model, first 32 hex digits.

    As this version of transformers reads it: old and new ways of saying the same are the same.
    """
    from transformers import AutoConfig

    try:
        read = AutoConfig.for_model(**config).to_dict()
    except (ValueError, TypeError):  # A family that transformers does not know: refused when it is loaded.
        read = dict(config)
    kept = {key: value for key, value in read.items() if key not in _IN_NO_NUMBER}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


# --- Asking -------------------------------------------------------------------------------------------------------


def asked(repository: str, question: Callable[[], T]) -> T:
    """The answer to a question about a repository: asked again, with growing waits, while the hub is in trouble.

    Raises:
        OntogenyError: there is no answer; says why, and what to do.
    """
    wait = WAIT
    for left in reversed(range(TRIES)):
        try:
            return question()
        except Exception as error:
            if not left or not is_passing(error):
                meaning = explained(repository, error)
                if meaning is None:
                    raise
                raise meaning from error
            log.warning("%s: %s; trying again in %.0f s.", repository, _short(error), wait)
        time.sleep(wait)
        wait *= 2
    raise AssertionError


def is_passing(error: Exception) -> bool:
    """Whether it may be over in a moment: a cut connection, no answer in time, trouble of the server."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, HTTPError | ConnectionError | TimeoutError) or "Consistency check failed" in str(error)


def explained(repository: str, error: BaseException) -> OntogenyError | None:
    """What an error of the hub's client means; None: it is none of those."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return OntogenyError(
            f"{repository} is gated: accept its conditions at {hub}/{repository}, then log in with `hf auth login` or "
            "set HF_TOKEN."
        )
    if isinstance(error, RepositoryNotFoundError):
        near = _nearest(repository)
        return OntogenyError(
            f"{hub} has no repository {repository}, or it is private and HF_TOKEN does not open it."
            + (f" Nearest: {', '.join(near)}." if near else "")
        )
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return OntogenyError(
            f"{repository} no longer has what was pinned: {_short(error)} Delete its file in .cache/pins and run again "
            "to pin what there is now."
        )
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return Unreachable(
            f"{repository} is not on this machine, and HF_HUB_OFFLINE keeps it from being asked for: run once without."
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code < 500:
        return OntogenyError(f"{hub} refuses what was asked of {repository}: {_short(error)}")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError | LocalEntryNotFoundError):
        return Unreachable(
            f"{hub} does not answer for {repository} ({_short(error)}), and it is not on this machine: connect to the "
            "network, or set HF_ENDPOINT to a hub that can be reached, and run the same again."
        )
    return None


def _nearest(repository: str) -> list[str]:
    """Repositories of the same owner with like names."""
    from huggingface_hub import HfApi

    owner, _, name = repository.rpartition("/")
    try:
        models = HfApi().list_models(author=owner or None, search=None if owner else name, limit=1000)
        return get_close_matches(repository, [model.id for model in models], n=5, cutoff=0.3)
    except Exception:  # It is only a hint.
        return []


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
