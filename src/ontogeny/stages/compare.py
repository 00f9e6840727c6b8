"""Two studies side by side: `ontogeny compare A B`.

A and B are each one of: `.` (the study of this folder), a profile's name, a folder (another clone, or its data/), a
git revision, or the name of a DVC experiment. Revisions are read from DVC's cache: nothing in the folder changes.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import yaml

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.places import Places
from ontogeny.records import read_member
from ontogeny.records.files import replacing
from ontogeny.records.member import MANIFEST
from ontogeny.series.comparison import Comparison, Side, compare
from ontogeny.stages.study import Study
from ontogeny.stages.terminal import number, whole

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

_ANALYSES: Final = "analyses"
_ONSETS: Final = Path("trajectories", "onsets.parquet")
_NO_SETTINGS: Final = ("execution", "tracking", "figures")
"""Sections of params.yaml that change no number."""
PICTURE_FORMATS: Final = ("png", "svg")


def compare_studies(study: Study, names: Sequence[str]) -> Comparison:
    """Find both studies, read them and lay them side by side.

    Raises:
        OntogenyError: one of them is not there, or they have no checkpoint in common.
    """
    with TemporaryDirectory(prefix="ontogeny-") as scratch:
        a, b = (_side(study.places, name, Path(scratch, str(place))) for place, name in enumerate(names))
        found = compare(a, b, study.params.trajectory)
    if not len(found.table):
        raise OntogenyError(
            f"{a.name} and {b.name} have no checkpoint in common: the first has {_members(a)}, "
            f"the second {_members(b)}. Checkpoints are matched by member, task and training step."
        )
    return found


def write_csv(comparison: Comparison, path: Path) -> None:
    """The table, with the names of A and B as columns."""
    named = comparison.table.assign(name_a=comparison.a, name_b=comparison.b)
    with replacing(path) as temporary:
        named.to_csv(temporary, index=False)


def write_picture(comparison: Comparison, path: Path, dpi: int) -> None:
    """The picture; the file's ending chooses the format.

    Raises:
        OntogenyError: an ending that is none of `PICTURE_FORMATS`.
    """
    from ontogeny.figures.comparison import comparison_rows, draw_comparison
    from ontogeny.figures.style import render

    figure = draw_comparison(comparison_rows(comparison))
    with replacing(path) as temporary:
        temporary.write_bytes(render(figure, check_picture(path), dpi))


def check_picture(path: Path) -> Any:
    """The format that a file's ending means.

    Raises:
        OntogenyError: none of `PICTURE_FORMATS`.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in PICTURE_FORMATS:
        raise OntogenyError(f"{path}: a picture ends in {' or '.join('.' + kind for kind in PICTURE_FORMATS)}.")
    return kind


def print_comparison(comparison: Comparison) -> None:
    """The tables on a terminal."""
    import sys

    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(f"[bold]A[/bold] {comparison.a}    [bold]B[/bold] {comparison.b}", highlight=False)
    if len(comparison.settings):
        console.print(settings_table(comparison))
    else:
        console.print("The settings are the same.")
    console.print(final_table(comparison))
    console.print(over_training_table(comparison))
    for letter, only in (("A", comparison.only_a), ("B", comparison.only_b)):
        if only:
            console.print(f"Only {letter} has: {', '.join(only)}.", highlight=False)
    for reason in dict.fromkeys(comparison.table["reason"]):
        if reason and not reason.startswith("no circuit"):
            console.print(f"Circuits are not compared where {reason}.", highlight=False)
    if not _same(comparison.table, "dataset"):
        console.print("The data sets differ: the two were asked other prompts.", highlight=False)


def settings_table(comparison: Comparison) -> Table:
    """Settings that differ."""
    table = _table("Settings that differ")
    for name in ("setting", "A", "B"):
        table.add_column(name)
    for row in comparison.settings.to_dict("records"):
        table.add_row(str(row["setting"]), *("-" if row[side] is None else str(row[side]) for side in "ab"))
    return table


def final_table(comparison: Comparison) -> Table:
    """Member x task at the last step that both have; numbers are A's, B's."""
    table = _table("At the last common checkpoint (A, B; J: Jaccard of the two circuits, 1 = the same)")
    for name in ("member", "task", "step", "metric", "onset", "edges", "nodes", "faith.", "J edges", "J nodes"):
        table.add_column(name, justify="left" if name in ("member", "task") else "right", no_wrap=True)
    for name in ("J same size", "scores"):
        table.add_column(name, justify="right")
    table.add_column("status", no_wrap=True)
    for row in comparison.final.to_dict("records"):
        table.add_row(
            str(row["member"]),
            str(row["task"]),
            whole(row["step"]),
            _two(row, "metric"),
            f"{_onset(row, 'a')}, {_onset(row, 'b')}",
            _two(row, "edges", whole),
            _two(row, "nodes", whole),
            _two(row, "faithfulness"),
            *(number(row[f"jaccard_{kind}"]) for kind in ("edges", "nodes", "edges_matched")),
            number(row["likeness_weighted"]),
            str(row["status_a"]) if row["status_a"] == row["status_b"] else f"{row['status_a']}, {row['status_b']}",
        )
    return table


def over_training_table(comparison: Comparison) -> Table:
    """Member x task: in how many checkpoints they agree, and how much on average."""
    table = _table("Over all common checkpoints")
    for name in ("member", "task", "checkpoints", "same weights", "same status", "largest |metric B - A|"):
        table.add_column(name, justify="left" if name in ("member", "task") else "right")
    for name in ("mean J edges", "mean J same size", "mean scores"):
        table.add_column(name, justify="right")
    for (member, task), rows in comparison.table.groupby(["member", "task"], sort=False):
        table.add_row(
            str(member),
            str(task),
            str(len(rows)),
            *(str(int((rows[f"{name}_a"] == rows[f"{name}_b"]).sum())) for name in ("weights", "status")),
            number((rows["metric_b"] - rows["metric_a"]).abs().max()),
            *(number(rows[name].mean()) for name in ("jaccard_edges", "jaccard_edges_matched", "likeness_weighted")),
        )
    return table


def _side(places: Places, name: str, scratch: Path) -> Side:
    with _folder(places, name, scratch) as folder:
        data = folder / "data"
        members = [p.parent.name for p in sorted((data / _ANALYSES).glob(f"*/{MANIFEST}"))]
        if not members or not (data / _ONSETS).exists():
            raise OntogenyError(f"{name}: {data} holds no finished study: run `ontogeny study` (or `dvc pull`) there.")
        settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        return Side(
            name="this folder" if name == "." else name,
            records=[read_member(data / _ANALYSES / member) for member in _in_order(settings, members)],
            onsets=pd.read_parquet(data / _ONSETS),
            settings=_flat({key: value for key, value in settings.items() if key not in _NO_SETTINGS}),
        )


@contextmanager
def _folder(places: Places, name: str, scratch: Path) -> Iterator[Path]:
    """A folder with the study's params.yaml and data/."""
    if name == ".":
        yield places.study
    elif Path(name).is_dir():
        yield _study_folder(Path(name).resolve())
    elif places.profile(name).study.is_dir():
        yield places.profile(name).study
    else:
        _bring(places.project, name, scratch)
        yield scratch


def _study_folder(folder: Path) -> Path:
    """The study that a folder is, or whose data/ it is."""
    for candidate in (folder, folder.parent):
        if (candidate / "params.yaml").exists() and (candidate / "data").is_dir():
            return candidate
    raise OntogenyError(f"{folder} is no study: expected a folder with params.yaml and data/, or the data/ beside one.")


def _bring(project: Path, revision: str, target: Path) -> None:
    """Records of a git revision or DVC experiment, from DVC's cache.

    Raises:
        OntogenyError: there is no such revision, or its results are not in the cache.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError
    from scmrepo.exceptions import SCMError

    target.mkdir()
    try:
        files = DVCFileSystem(str(project), rev=revision)
        for name in (f"data/{_ANALYSES}", f"data/{_ONSETS}", "params.yaml"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            files.get(name, os.fspath(target / name), recursive=True)
    except (RevError, SCMError):
        raise OntogenyError(
            f"{revision!r} is neither a folder nor a profile that was run nor a git revision or DVC experiment. "
            "`dvc exp show` and `git branch` list those; `.` is the study of this folder."
        ) from None
    except (DvcException, OSError) as error:
        shutil.rmtree(target)
        raise OntogenyError(
            f"The results of {revision!r} cannot be read ({str(error) or type(error).__name__}): that revision needs "
            "a dvc.lock (a DVC experiment has one; else commit it) and its results in DVC's cache (`dvc pull`)."
        ) from None


def _in_order(settings: Any, members: Sequence[str]) -> list[str]:
    """Members in the order of the params; others after them."""
    listed = [m for m in settings.get("suite", {}).get("members", ()) if m in members]
    return [*listed, *(m for m in members if m not in listed)]


def _flat(nested: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(nested, dict) or not nested:
        return {prefix: str(nested)}
    flat: dict[str, str] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _members(side: Side) -> str:
    return ", ".join(record.member for record in side.records)


def _same(table: pd.DataFrame, name: str) -> bool:
    return bool((table[f"{name}_a"] == table[f"{name}_b"]).all())


def _two(row: Any, name: str, shown: Any = number) -> str:
    return f"{shown(row[f'{name}_a'])}, {shown(row[f'{name}_b'])}"


def _onset(row: Any, letter: str) -> str:
    """The step, or `never`, `first` (there at the first checkpoint), or a dash."""
    status = row[f"onset_{letter}"]
    if status == "found":
        return whole(row[f"onset_step_{letter}"])
    return {"before the first checkpoint": "first", None: "-"}.get(status, str(status))


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
