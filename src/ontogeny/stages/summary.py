"""What a study found, as tables on a terminal."""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ontogeny.records import MemberRecord, read_json, unpack
from ontogeny.records.datasets import REFS, read_checkpoints
from ontogeny.records.member import Failure
from ontogeny.stages.analyse import EXAMINATION
from ontogeny.stages.claims import claims_table
from ontogeny.stages.learning import verdicts
from ontogeny.stages.mechanism import (
    algorithm_table,
    check_table,
    handover_sentence,
    last_checkpoints,
    other_algorithms,
    role_table,
)
from ontogeny.stages.reproduce import Timing, timings
from ontogeny.stages.study import Study
from ontogeny.stages.terminal import new_table, number, percent, short_onset, whole
from ontogeny.stages.trajectory import read_records

if TYPE_CHECKING:
    from rich.table import Table

    from ontogeny.execution.examination import Examination


def print_summary(study: Study, seconds: Mapping[str, float] | None = None) -> bool:
    """Print everything; whether no job failed.

    Args:
        study: a study that has been run.
        seconds: wall time of each phase, if it was run just now; the first phase is the pipeline.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=150)
    wide, records = console.width >= 132, read_records(study)
    timed = [timing_table(timings(study), seconds)] if seconds is not None else []
    failed = list(failures(study, records))
    for part in (*findings(study, records, wide=wide), *timed, *failed, *_where(study), *judgements(study, wide=wide)):
        console.print(part, highlight=False)
    return not failed


def findings(study: Study, records: Sequence[MemberRecord], *, wide: bool = True) -> Iterator[Table | str]:
    """Tables and sentences on the end of training: behaviour, circuits, heads, the algorithm; `wide`: `main_table`."""
    exams = {record.member: read_examination(study, record.member) for record in records}
    yield main_table(pd.read_parquet(study.trajectories / "summary.parquet"), wide=wide)
    yield learning_table(records, exams)
    yield probe_table(exams)
    yield from _mechanism(study, records)


def judgements(study: Study, *, wide: bool = True) -> Iterator[Table]:
    """Over time against over seeds, and the verdicts on the claims."""
    alike = pd.read_parquet(study.trajectories / "alikeness.parquet")
    if len(alike):
        yield alikeness_table(alike)
    yield claims_table(pd.read_parquet(study.trajectories / "claims.parquet"), wide=wide)


def failures(study: Study, records: Sequence[MemberRecord]) -> Iterator[str]:
    """A line a failed job."""
    for failure in _failures(study, records):
        where = failure.member if failure.step is None else f"{failure.member} step {failure.step}"
        yield f"[bold]failed[/bold] {where}: {failure.reason}"


def _failures(study: Study, records: Sequence[MemberRecord]) -> list[Failure]:
    """All failed jobs: those of stages that will be tried again, and those that left gaps in the records."""
    folders = [study.checkpoints(member) for member in study.params.suite.members]
    lists = [read_checkpoints(folder).failures for folder in folders if (folder / REFS).exists()]
    gaps = [failure for record in records for failure in record.failures]
    return list(dict.fromkeys([*study.read_failures(), *(failure for each in lists for failure in each), *gaps]))


def _mechanism(study: Study, records: Sequence[MemberRecord]) -> Iterator[Table | str]:
    """Heads, the algorithm, checks of circuits: what was measured of them."""
    last = last_checkpoints(records).values()
    if any(analysis.roles for analysis in last):
        yield role_table(records, pd.read_parquet(study.trajectories / "role_onsets.parquet"))
        handovers = pd.read_parquet(study.trajectories / "handovers.parquet")
        yield handover_sentence(handovers, study.params.trajectory.sustain)
    if any(analysis.algorithm is not None for analysis in last):
        yield algorithm_table(records)
    if any(result.verification is not None for analysis in last for result in analysis.tasks.values()):
        yield check_table(records)
    yield from other_algorithms(records)


def read_examination(study: Study, member: str) -> Examination | None:
    """The member's examination; none where its last checkpoint failed."""
    from ontogeny.execution.examination import Examination

    path = study.analyses(member) / EXAMINATION
    return unpack(Examination, read_json(path), {}) if path.exists() else None


def main_table(summary: pd.DataFrame, *, wide: bool = True) -> Table:
    """Model x task: final metric, onset, circuit, faithfulness, status; without `wide` it fits 80 columns."""
    extra = ("parameters", "95 % interval", "of all")
    names = ("member", "parameters", "task", "metric", "95 % interval", "acc.", "onset", "asked", "kept", "of all")
    shown = [name for name in (*names, "faith.", "status") if wide or name not in extra]
    table = new_table("The study, end of training (onset: step; asked, kept: edges)", *shown, narrow=not wide)
    previous = None
    for row in summary.to_dict("records"):
        if previous not in (None, row["member"]):
            table.add_section()
        previous = row["member"]
        cells = _cells(row)
        table.add_row(*(cells[name] for name in shown))
    return table


def _cells(row: Mapping[Any, Any]) -> dict[str, str]:
    """One model and task, by column."""
    return {
        "member": str(row["member"]),
        "parameters": whole(row["parameters"]),
        "task": str(row["task"]) or "all",
        "metric": number(row["metric"]),
        "95 % interval": f"{number(row['metric_low'])} to {number(row['metric_high'])}",
        "acc.": number(row["accuracy"]),
        "onset": whole(row["onset_step"]) if row["onset"] == "found" else short_onset(str(row["onset"])),
        "asked": whole(row["edges_asked"]),
        "kept": whole(row["edges_kept"]),
        "of all": percent(row["edges_share"]),
        "faith.": number(row["faithfulness_held_out"]),
        "status": str(row["status"]),
    }


def learning_table(records: Sequence[MemberRecord], exams: dict[str, Examination | None]) -> Table:
    """Member x task: does it reach the thresholds of `ontogeny.stages.learning`?"""
    table = new_table("Learnt? Held-out prompts, end of training", "member", "task")
    table.add_column("learnt")
    table.add_column("measured (threshold)")
    for record in records:
        if not record.analyses:
            continue
        last, exam = record.analyses[-1], exams[record.member]
        for task, result in last.tasks.items():
            blind = exam.blind.get(task, math.nan) if exam is not None else math.nan
            found = verdicts(task, result.behaviour["held_out"], blind)
            if found:
                passed = all(verdict.passed for verdict in found)
                table.add_row(record.member, task, "yes" if passed else "no", ", ".join(map(str, found)))
        table.add_section()
    return table


def probe_table(exams: dict[str, Examination | None]) -> Table:
    """Member x probe set: how IOI is solved (METHODS 11.2)."""
    table = new_table("Probe sets of IOI", "member", "probe", "accuracy", "p(IO)", "p(S)", "p(bystander)")
    for member, exam in exams.items():
        for name, result in (exam.probes if exam is not None else {}).items():
            shares = (result.accuracy, result.io, result.s, result.bystander)
            table.add_row(member, name, *("" if share is None else number(share) for share in shares))
        table.add_section()
    return table


def alikeness_table(alike: pd.DataFrame) -> Table:
    """Scale x task: what circuits are worth in other models, and the edges that they share with the circuits there."""
    title = "The same circuit? Raw faithfulness in other models, median over pairs (Jaccard of edges)"
    heads = {
        "at_home": "at home",
        "over_time": "other checkpoints",
        "shuffled": "heads shuffled",
        "seeds_matched": "other seed, matched",
        "seeds_unmatched": "same indices",
        "seeds_shuffled": "shuffled",
    }
    table = new_table(title, "scale", "task", *heads.values())
    for (scale, task), rows in alike.groupby(["scale", "task"], sort=False):
        found = rows.set_index("what")
        cells = [
            f"{number(found.at[what, 'raw'])} ({number(found.at[what, 'jaccard'])})" if what in found.index else "-"
            for what in heads
        ]
        table.add_row(str(scale), str(task), *cells)
    return table


def timing_table(stages: Sequence[Timing], seconds: Mapping[str, float]) -> Table:
    """Wall time by stage, then of what is no stage."""
    table = new_table("Wall time", "phase", "runs", "minutes")
    spent: dict[str, list[float]] = defaultdict(list)
    for timing in stages:
        spent[timing.stage].append(timing.seconds)
    (_, pipeline), *others = seconds.items()
    rest = pipeline - sum(map(sum, spent.values()))
    rows = [(stage, str(len(each)), sum(each)) for stage, each in spent.items()]
    rows += [("start-up of stages, DVC", "", rest), *((phase, "", time) for phase, time in others)]
    for phase, runs, time in [*rows, ("all", "", sum(seconds.values()))]:
        table.add_row(phase, runs, f"{time / 60:.2f}")
    return table


def _where(study: Study) -> Iterator[str]:
    """Where to look next."""
    here = Path(os.path.relpath(study.figures, Path.cwd()))
    yield f"Pictures: {here}/   tables: {here.parent / 'trajectories'}/"
    yield "MLflow:   make ui   (or: ontogeny ui), then http://127.0.0.1:5000"
