"""A study as a folder of files to keep or to show: `ontogeny report FOLDER`.

``report.md`` has the verdicts, the summary's tables and the pictures; beside it lie the tables behind them, params.yaml
and dvc.lock, which has a digest of every input and output of every stage.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from ontogeny.core.errors import OntogenyError
from ontogeny.records.files import replacing
from ontogeny.stages.check import check_folder
from ontogeny.stages.claims import parts_table
from ontogeny.stages.publish import git_commit
from ontogeny.stages.reproduce import differs_from_head
from ontogeny.stages.study import Study
from ontogeny.stages.summary import failures, findings, judgements
from ontogeny.stages.terminal import markdown, plain
from ontogeny.stages.trajectory import read_records

if TYPE_CHECKING:
    from rich.table import Table

    from ontogeny.figures import FigureKind

log = logging.getLogger(__name__)

REPORT: Final = "report.md"
_PACKAGES: Final = (
    "ontogeny",
    "torch",
    "transformers",
    "transformer_lens",
    "numpy",
    "scipy",
    "pandas",
    "dvc",
    "mlflow",
)
_LARGEST_CSV: Final = 200_000
"""Bytes; a larger table is kept as Parquet."""


def write_report(study: Study, folder: Path, members: Sequence[str] = ()) -> Path:
    """Write the report of a study that has been run; an earlier one in `folder` is replaced.

    Args:
        study: the study.
        folder: a new or empty folder, or one with an earlier report.
        members: those of which the pictures of a single member are kept too.

    Returns:
        The file `report.md`.

    Raises:
        OntogenyError: `folder` is a file or holds something else, the study has no such member, or it has not been run.
    """
    unknown = sorted(set(members) - set(study.params.suite.members))
    if unknown:
        raise OntogenyError(
            f"The study has no member {', '.join(unknown)}; choose from {', '.join(study.params.suite.members)}."
        )
    if not (study.trajectories / "claims.parquet").exists():
        raise OntogenyError(f"{study.trajectories} has no tables: run `ontogeny study`, which writes them.")
    check_folder(folder)
    file = folder / REPORT
    if folder.exists() and not file.exists() and any(folder.iterdir()):
        raise OntogenyError(f"{folder} holds something else than a report: give a new or an empty folder.")
    pictures = dict(_pictures(study, members))
    # All that may be broken is read before anything is written.
    text = "\n\n".join(_lines(study, pictures)) + "\n"
    for old in ("tables", "figures"):
        shutil.rmtree(folder / old, ignore_errors=True)
    _keep(folder, [study.places.study / name for name in ("params.yaml", "dvc.lock")])
    _keep(folder / "tables", _tables(study.trajectories))
    for picture in pictures:
        _keep((folder / "figures" / picture).parent, [study.figures / picture])
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%s: %d pictures, %.1f MB.", file, len(pictures), _megabytes(folder))
    return file


def _lines(study: Study, pictures: Mapping[str, str]) -> Iterator[str]:
    """The paragraphs of the report."""
    records = read_records(study)
    yield f"# The study `{study.params.tracking.study}`"
    yield from _provenance(study)
    *judged, verdicts = judgements(study)
    yield from _section(verdicts)
    for found in (*failures(study, records), *findings(study, records), *judged):
        yield from [plain(found)] if isinstance(found, str) else _section(found)
    yield from _section(parts_table(pd.read_parquet(study.trajectories / "claims.parquet")))
    yield "## Pictures"
    if not pictures:
        yield "None: the stage `figures` has not run."
    for picture, caption in pictures.items():
        yield f"{caption}\n\n![{caption}](figures/{picture})"


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.title}"
    yield markdown(table)


def _provenance(study: Study) -> Iterator[str]:
    """What was run, with what, and whether it can be had again."""
    project = study.places.project
    dirty = " with changes in src" if differs_from_head(project, "src") else ""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    seeds = ", ".join(f"`{name}` {seed}" for name, seed in seeds_of(study.params.model_dump(mode="json")))
    yield "\n".join(
        [
            f"- Sources: git {git_commit(project) or 'unknown'}{dirty}. {_state(study)}",
            "- Settings: [params.yaml](params.yaml).",
            f"- Members (scale and seed): {', '.join(study.params.suite.members)}. Other seeds: {seeds}.",
            f"- Python {platform.python_version()} on {platform.system()} {platform.machine()}: {packages}.",
            "- Tables: the folder [tables](tables), large ones as Parquet; their columns are explained in the "
            "documentation (the page Tables: docs/tables.md among the sources).",
        ]
    )


def seeds_of(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """Every `seed` of the settings, with its dotted name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from seeds_of(value, f"{path}{name}.")
        elif name == "seed":
            yield f"{path}{name}", value


def _state(study: Study) -> str:
    """Whether outputs, settings and sources are those of dvc.lock, as `dvc status` sees it."""
    if not (study.places.study / "dvc.lock").exists():
        return "There is no dvc.lock: `dvc repro` has not run this study."
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=study.places.study, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OntogenyError(f"`dvc status` failed in {study.places.study}: {done.stderr.strip()}")
    changed = ", ".join(sorted(json.loads(done.stdout)))
    lock = "[dvc.lock](dvc.lock) has digests of all inputs and outputs of every stage"
    return f"{lock}; {f'not up to date with these: {changed}' if changed else 'all are up to date with these'}."


def _tables(folder: Path) -> list[Path]:
    """The file to keep of each table: CSV if it is small, else Parquet."""
    csv = {path.stem: path for path in folder.glob("*.csv") if path.stat().st_size <= _LARGEST_CSV}
    parquet = {path.stem: path for path in folder.glob("*.parquet")}
    return [*(parquet | csv).values(), folder / "claims.json"]


def _pictures(study: Study, members: Sequence[str]) -> Iterator[tuple[str, str]]:
    """File in the folder of pictures, and caption, in the order of the registry."""
    from ontogeny.figures import FIGURES

    ending = study.params.figures.formats[0]
    for kind in FIGURES.values():
        for path in _files(study.figures, kind, ending, members):
            yield path.relative_to(study.figures).as_posix(), _caption(kind, path.stem)


def _files(folder: Path, kind: FigureKind, ending: str, members: Sequence[str]) -> list[Path]:
    if not kind.split_by:
        return [path for path in [folder / f"{kind.name}.{ending}"] if path.exists()]
    found = sorted((folder / kind.name).glob(f"*.{ending}"))
    if "member" not in kind.split_by:
        return found
    return [path for path in found for member in members if path.stem == member or path.stem.endswith(f"-{member}")]


def _caption(kind: FigureKind, stem: str) -> str:
    return kind.caption if stem == kind.name else f"{stem}: {kind.caption}"


def _keep(folder: Path, files: Sequence[Path]) -> None:
    """Copy those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.exists():
            with replacing(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
