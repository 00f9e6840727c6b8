"""Running the whole pipeline: the folder of a profile, `dvc repro`, and what it took."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.lifeline import die_with_parent
from ontogeny.execution.places import Places
from ontogeny.records.files import replacing
from ontogeny.stages.mend import mend
from ontogeny.stages.study import Study

log = logging.getLogger(__name__)

_NO_SCM_CONFIG = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
[cache]
    dir = {cache}
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of one stage in the last run."""

    stage: str
    item: str | None
    seconds: float


def profiles(project: Path) -> dict[str, Path]:
    """Name -> params file of each profile."""
    return {path.stem: path for path in sorted((project / "params").glob("*.yaml"))}


def profile_file(project: Path, name: str) -> Path:
    """The params file of a profile.

    Raises:
        OntogenyError: there is none of that name.
    """
    known = profiles(project)
    if name not in known:
        raise OntogenyError(f"There is no profile {name!r} in params/; choose from {', '.join(known) or 'none'}.")
    return known[name]


def prepare_profile(places: Places, params_file: Path) -> None:
    """Make the folder of a profile: its own params.yaml, dvc.lock and data/, the project's stages and sources.

    It is a DVC project of its own (DVC refuses a dvc.lock that git ignores) which shares the project's DVC cache.
    """
    folder = places.study
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / ".dvc" / "config").write_text(_NO_SCM_CONFIG.format(cache=places.project / ".dvc" / "cache"))
    for name in ("dvc.yaml", "src"):
        link, target = folder / name, os.path.relpath(places.project / name, folder)
        if not link.is_symlink() or os.readlink(link) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    shutil.copyfile(places.project / ".dvcignore", folder / ".dvcignore")
    with replacing(folder / "params.yaml") as temporary:
        shutil.copyfile(params_file, temporary)


def remove_stale(study: Study) -> None:
    """Remove results of members and tasks that are no longer in params.yaml: folders that stages read as a whole."""
    members, tasks = set(study.params.suite.members), set(study.params.datasets.tasks)
    failures = {f"{stage}-{member}.json" for stage in ("analyse", "transfer") for member in members}
    failures |= {f"tune-{task}.json" for task in tasks}
    for folder, wanted in (
        (study.places.data / "analyses", members),
        (study.places.data / "transfer", members),
        (study.places.data / "tasks", tasks),
        (study.places.data / "studies", tasks),
        (study.failures, {"checkpoints.json", *failures}),
    ):
        for path in folder.glob("*") if folder.is_dir() else ():
            if path.name not in wanted:
                log.info("Removing %s: it is not in params.yaml.", path.relative_to(study.places.study))
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def reproduce(study: Study, arguments: Sequence[str] = ()) -> int:
    """`dvc repro` in the study's folder; its exit code. It ends when this process does."""
    study.timings.unlink(missing_ok=True)
    mend(study.places.study)
    remove_stale(study)
    study.forget_failed()
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])}
    with subprocess.Popen(
        command, cwd=study.places.study, env=environment, preexec_fn=partial(die_with_parent, os.getpid())
    ) as process:
        return process.wait()


def timings(study: Study) -> list[Timing]:
    """Stages that ran in the last `reproduce`, in order; stages that had nothing to do are missing."""
    if not study.timings.exists():
        return []
    return [Timing(**json.loads(line)) for line in study.timings.read_text(encoding="utf-8").splitlines()]


def differs_from_head(project: Path, name: str) -> bool:
    """Whether a file differs from git's HEAD (`dvc exp run -S` rewrites params.yaml)."""
    command = ["git", "-C", str(project), "diff", "--quiet", "HEAD", "--", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 1
