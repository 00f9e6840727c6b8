"""Studies over settings as tables on a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Recommendation, Trial, TuningRecord
from ontogeny.records.tuning import read_tuning
from ontogeny.stages.studies import known_studies
from ontogeny.stages.study import Study

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_studies(study: Study) -> None:
    """A line a study over settings."""
    from rich.table import Table

    table = Table(title="Studies over settings", title_justify="left", box=None, pad_edge=False)
    for heading in ("study", "task", "mode", "trials", "recommended"):
        table.add_column(heading)
    for name, folder in known_studies(study).items():
        record = read_tuning(folder)
        best = record.recommended.setting
        table.add_row(name, record.task, record.mode, str(len(record.trials)), "-" if best is None else str(best))
    _console().print(table)


def print_study(record: TuningRecord, trial: int | None = None) -> None:
    """The answers of a study, or one of its trials.

    Raises:
        OntogenyError: no such trial.
    """
    console = _console()
    if trial is not None:
        if not 0 <= trial < len(record.trials):
            raise OntogenyError(
                f"The study {record.name!r} has no trial {trial}: "
                + (f"they are numbered 0 to {len(record.trials) - 1}." if record.trials else "it has none.")
            )
        _print_trial(console, record, trial)
        return
    console.print(f"[bold]{record.name}[/bold]: {record.task}, {record.mode}, {len(record.trials)} trials; target "
                  f"{record.target:g} ({record.form}) on tune", highlight=False)  # fmt: skip
    for c in record.checkpoints:
        if c.status != "learned":
            console.print(f"  {c.name}: {c.status}. {c.reason}", highlight=False)
    _print_recommendation(console, "Recommended", record.recommended)
    if record.adoptable.setting != record.recommended.setting:
        _print_recommendation(console, "With all prompts (what `adopt` writes)", record.adoptable)
    for rows, title in _answers(record):
        console.print(_rich_table(title, rows))


def _answers(record: TuningRecord) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Tables: how many steps, what a threshold costs, what carries over."""
    steps = [
        {
            "checkpoint": e.checkpoint,
            "scores": f"{e.method} {e.rule}",
            "enough": "-" if e.steps is None else f"m = {e.steps}",
            "behind": _range(e.gap.value, e.gap.low, e.gap.high),
            "largest m": str(e.largest),
        }
        for e in record.enough
    ]
    if steps:
        yield steps, "How many steps are enough? (Spearman with exact scores, behind the largest m's)"
    from ontogeny.figures.tuning import threshold_rows

    rows = threshold_rows(record)
    thresholds = [
        {
            "checkpoint": str(row["checkpoint"]),
            "threshold": f"{row['threshold']:g}",
            "edges kept": _range(row["edges"], row["edges_low"], row["edges_high"], percent=True),
            "tune": _range(row["tune"], row["tune_low"], row["tune_high"]),
            "held_out": _range(row["held_out"], row["held_out_low"], row["held_out_high"]),
        }
        for row in rows.to_dict("records")
    ]
    if thresholds:
        yield thresholds, f"What does a higher threshold cost? ({rows['setting'].iloc[0]})"
    carried = [
        {
            "found at": c.source,
            "tried at": c.target,
            "edges kept": _range(c.edges.value, c.edges.low, c.edges.high, percent=True),
            "own best": f"{c.own_edges:.1%}",
            "tune": _range(c.tune.value, c.tune.low, c.tune.high),
            "carries": "yes" if c.carries else "no",
        }
        for c in record.carried
        if c.source != c.target
    ]
    if carried:
        yield carried, "Does the setting found at one checkpoint carry to others?"


def _print_trial(console: Console, record: TuningRecord, place: int) -> None:
    trial: Trial = record.trials[place]
    console.print(f"[bold]trial {place}[/bold]: {trial.setting}", highlight=False)
    rows = [
        {
            "checkpoint": name,
            "status": e.status,
            "edges": "-" if e.kept is None else str(e.kept),
            "kept": _range(e.edges, e.edges_low, e.edges_high, percent=True),
            "tune": _range(e.tune.value, e.tune.low, e.tune.high),
            "held_out": _range(e.held_out.value, e.held_out.low, e.held_out.high),
            "passes": f"{e.passes:,.0f}",
        }
        for name, e in trial.evaluations.items()
    ]
    console.print(_rich_table("", rows))


def _print_recommendation(console: Console, title: str, found: Recommendation) -> None:
    console.print(f"[bold]{title}:[/bold] {found.setting or 'nothing'}", highlight=False)
    console.print(f"  {found.reason}", highlight=False)


def _range(value: float, low: float, high: float, *, percent: bool = False) -> str:
    def one(x: float) -> str:
        return "-" if math.isnan(x) else f"{x:.1%}" if percent else f"{x:.2f}"

    return f"{one(value)} ({one(low)} to {one(high)})"


def _rich_table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row.values())
    return table


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=150)
