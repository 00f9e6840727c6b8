"""What is said of members one by one; `follow` puts them together and compares them.

A part needs nothing but the records of its own members, so that parts can be computed side by side, and kept: when one
member changes, those of the others stand (see `ontogeny.stages.trajectory`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from ontogeny.core.circuit import Selection
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.emergence import Emergence, emergences, onset_tokens
from ontogeny.series.fluctuation import Fluctuation, fluctuations
from ontogeny.series.persistence import role_survival
from ontogeny.series.quantities import EDGES, NODES
from ontogeny.series.role_graph import last_circuits, role_graph_table
from ontogeny.series.roles import handovers, role_emergences, role_table, role_turnover
from ontogeny.series.similarity import similarity
from ontogeny.series.stability import stability_table
from ontogeny.series.table import headline, tidy


@dataclass(frozen=True)
class Part:
    """Tables and series of some members. All but the last are those of `Trajectory`."""

    numbers: pd.DataFrame
    """Tidy: what records hold."""
    likeness: pd.DataFrame
    """Tidy: of circuits over time."""
    turnover: pd.DataFrame
    """Tidy: of roles."""
    heads: pd.DataFrame
    handovers: pd.DataFrame
    stability: pd.DataFrame
    survival: pd.DataFrame
    role_graph: pd.DataFrame
    abilities: tuple[Emergence, ...]
    """The behaviour of each member and task."""
    roles: tuple[Emergence, ...]
    """The best head of each role."""
    sizes: tuple[Fluctuation, ...]
    """Edges and nodes from the onset on."""
    records: tuple[MemberRecord, ...]
    """Thin ones: every checkpoint and its model, but results only of each task's last circuit."""


def part_of(
    records: Sequence[MemberRecord],
    params: TrajectoryParams,
    *,
    confidence: float = 0.95,
    selection: Selection = "greedy",
) -> Part:
    """The part of `records`; arguments as of `follow`. Nothing in it depends on `params.claims`."""
    numbers, heads = tidy(records), role_table(records)
    abilities = emergences(headline(numbers), params, confidence=confidence)
    sizes = numbers[numbers["quantity"].isin([EDGES, NODES])]
    likeness = similarity(records, params, selection=selection)
    return Part(
        numbers=numbers,
        likeness=likeness,
        turnover=role_turnover(records),
        heads=heads,
        handovers=handovers(records, params),
        stability=stability_table(records, pd.concat([numbers, likeness], ignore_index=True), params, selection),
        survival=role_survival(heads, params.sustain, seed=params.seed),
        role_graph=role_graph_table(records),
        abilities=tuple(abilities),
        roles=tuple(role_emergences(records, params)),
        sizes=tuple(fluctuations(sizes, params, since=onset_tokens(abilities))),
        records=tuple(map(_thin, records)),
    )


def together(parts: Sequence[Part]) -> Part:
    """One part of several, at least one, in their order; it is that of all their records."""
    joined: dict[str, Any] = {
        field.name: _JOIN.get(field.name, _rows)([getattr(part, field.name) for part in parts])
        for field in fields(Part)
    }
    whole = Part(**joined)
    tasks = list(dict.fromkeys(whole.numbers["task"]))
    abilities = sorted(whole.abilities, key=lambda each: tasks.index(each.who["task"]))
    stability = whole.stability.sort_values("member", kind="stable", ignore_index=True)
    return replace(whole, abilities=tuple(abilities), stability=stability)


def _rows(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; an empty one says nothing about types."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _all(series: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
    return tuple(each for some in series for each in some)


_JOIN: dict[str, Callable[..., object]] = dict.fromkeys(("abilities", "roles", "sizes", "records"), _all)


def _thin(record: MemberRecord) -> MemberRecord:
    last = last_circuits(record)
    kept = [
        replace(
            analysis,
            tasks={task: result for task, result in analysis.tasks.items() if last.get(task) is analysis},
            roles=analysis.roles if analysis in last.values() else {},
            algorithm=None,
        )
        for analysis in record.analyses
    ]
    return replace(record, analyses=tuple(kept))
