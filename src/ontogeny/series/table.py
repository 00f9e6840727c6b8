"""The tidy table: one row a checkpoint, task and quantity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pandas as pd

from ontogeny.params import split_member
from ontogeny.records import MemberRecord
from ontogeny.series.mechanism import mechanism_measures
from ontogeny.series.quantities import HEADLINE_SPLITS, behaviour_quantity, measures

COLUMNS: Final = (
    "suite",
    "member",
    "scale",
    "seed",
    "parameters",
    "step",
    "tokens",
    "task",
    "quantity",
    "value",
    "low",
    "high",
    "status",
    "duplicate_of",
    "part",
)
FAILED: Final = "failed"
"""Status (and quantity `checkpoint`) of a job that failed: its rows are there, without a number."""
_INTEGERS: Final = dict.fromkeys(("seed", "parameters", "step", "tokens", "duplicate_of"), "Int64")


def tidy(records: Iterable[MemberRecord]) -> pd.DataFrame:
    """Every number of every checkpoint, in the order of the records, steps, tasks and names.

    `duplicate_of` is the earlier step with the same weights (METHODS 1.5), else missing. `part` is the head or the set
    of edges that the number is of (``a3.h1``; `circuit`, `at_5pct`, `all edges`), empty where it is of the whole model.
    A failed checkpoint has one row with quantity `checkpoint` and status `failed`.
    """
    rows = [row for record in records for row in _member_rows(record)]
    return as_table(rows)


def as_table(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    """Rows in the order of `COLUMNS`, with fixed types (an empty table too); the last cell, `part`, may be left out."""
    whole = [row if len(row) == len(COLUMNS) else (*row, "") for row in rows]
    table = pd.DataFrame(whole, columns=list(COLUMNS))
    numbers = dict.fromkeys(("value", "low", "high"), "float64")
    words = dict.fromkeys(("suite", "member", "scale", "task", "quantity", "status", "part"), "str")
    return table.astype(_INTEGERS | numbers | words)


def headline(table: pd.DataFrame, estimate: str = "metric") -> pd.DataFrame:
    """The rows of the behaviour that figures show: for each task the held-out split, or the best that it has."""
    parts = []
    for _, rows in table.groupby("task", sort=False):
        names = [behaviour_quantity(split, estimate) for split in HEADLINE_SPLITS]
        present = set(rows["quantity"])
        name = next((n for n in names if n in present), names[0])
        parts.append(rows[rows["quantity"] == name])
    return pd.concat(parts) if parts else table.iloc[:0]


def final_step(rows: pd.DataFrame) -> int:
    """The last step that was analysed."""
    return int(rows.loc[rows["status"] != FAILED, "step"].max())


def _member_rows(record: MemberRecord) -> Iterator[tuple[object, ...]]:
    duplicates = record.duplicates
    for analysis in sorted(record.analyses, key=lambda a: a.ref.step):
        ref = analysis.ref
        who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, ref.step, ref.tokens)
        for task, result in analysis.tasks.items():
            named = measures(result, analysis.model.graph) | mechanism_measures(analysis, task)
            for quantity, measure in named.items():
                yield (*who, task, quantity, *measure[:-1], duplicates.get(ref.step), measure.part)
    scale, seed = split_member(record.member)
    for failure in record.failures:
        lost = (record.suite, record.member, scale, seed, None, failure.step, None)
        yield (*lost, "", "checkpoint", math.nan, math.nan, math.nan, FAILED, None)
