"""One row a model and task: what a study ends with."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ontogeny.series.quantities import (
    BEST_EDGES,
    HEADLINE_SPLITS,
    behaviour_quantity,
    faithfulness_quantity,
)
from ontogeny.series.table import FAILED, final_step

_NUMBERS = (
    "metric",
    "metric_low",
    "metric_high",
    "accuracy",
    "edges_share",
    "faithfulness_discover",
    "faithfulness_held_out",
    "normalised_faithfulness_held_out",
)
_COUNTS = (
    "onset_step",
    "onset_tokens",
    "edges_asked",
    "edges_kept",
    "nodes",
    "checkpoints",
    "circuits_found",
    "failed",
)
_COMPARED = (
    "metric",
    "accuracy",
    "onset_step",
    "edges_asked",
    "edges_kept",
    "nodes",
    "faithfulness_discover",
    "faithfulness_held_out",
    "circuits_found",
    "failed",
)
"""What DVC compares: few enough to be read as a table."""
_WHO = ("suite", "member", "scale", "seed", "parameters", "task")


def summary(table: pd.DataFrame, onsets: pd.DataFrame) -> pd.DataFrame:
    """One row a member and task: the last checkpoint's numbers, the onset, and how many checkpoints there were.

    `status` is the circuit's at the last checkpoint; `edges_kept` is also given where the threshold was not met (it
    is then the best circuit's), `edges_asked` and `nodes` only where a circuit was found. `onset` is `found`, `never`
    or `before the first checkpoint`. `failed` counts the member's failed checkpoints.
    """
    failed = table[table["status"] == FAILED].groupby("member", sort=False).size()
    done = table[table["status"] != FAILED]
    onset_of: dict[Any, Any] = {(row.member, row.task): row for row in onsets.itertuples()}
    rows = []
    for keys, series in done.groupby(list(_WHO), sort=False):
        who: dict[str, Any] = dict(zip(_WHO, keys))
        last = series[series["step"] == final_step(series)].set_index("quantity")
        onset = onset_of[who["member"], who["task"]]
        found = series[(series["quantity"] == "circuit/edges") & (series["status"] == "found")]
        rows.append(
            who
            | _final(last)
            | {"onset": onset.status, "onset_step": onset.step, "onset_tokens": onset.tokens}
            | {"checkpoints": series["step"].nunique(), "circuits_found": len(found)}
            | {"failed": int(failed.get(who["member"], 0))}
        )
    rows += [_lost(table, member, count) for member, count in failed.items() if member not in set(done["member"])]
    frame = pd.DataFrame(rows, columns=[*_WHO, "step", "status", "onset", *_NUMBERS, *_COUNTS])
    return frame.astype(dict.fromkeys(("seed", "parameters", "step", *_COUNTS), "Int64"))


def dvc_metrics(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Model -> task -> name -> number, null where a number is undefined: what `dvc metrics show` and `diff` read.

    A member of which nothing could be analysed has one entry, ``{"all": {"failed": n}}``.
    """
    metrics: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for row in summary.to_dict("records"):
        lost = row["status"] == FAILED
        names = ("failed",) if lost else _COMPARED
        numbers = {name: (_count if name in _COUNTS else _number)(row[name]) for name in names}
        metrics.setdefault(str(row["member"]), {})["all" if lost else str(row["task"])] = numbers
    return metrics


def _lost(table: pd.DataFrame, member: object, count: int) -> dict[str, Any]:
    """The row of a member of which every checkpoint failed."""
    who = {str(k): v for k, v in table.loc[table["member"] == member, list(_WHO)].iloc[0].items()}
    counts = {"checkpoints": 0, "circuits_found": 0, "failed": int(count)}
    return who | {"status": FAILED, "onset": ""} | counts


def _final(last: pd.DataFrame) -> dict[str, Any]:
    """The last checkpoint's numbers; `last` is indexed by quantity."""
    split = next((s for s in HEADLINE_SPLITS if behaviour_quantity(s) in last.index), HEADLINE_SPLITS[0])

    def value(quantity: str, column: str = "value") -> Any:
        return last.at[quantity, column] if quantity in last.index else math.nan

    return {
        "step": int(last["step"].iloc[0]),
        "status": last.at["circuit/edges", "status"],
        "metric": value(behaviour_quantity(split)),
        "metric_low": value(behaviour_quantity(split), "low"),
        "metric_high": value(behaviour_quantity(split), "high"),
        "accuracy": value(behaviour_quantity(split, "accuracy")),
        "edges_asked": value("circuit/asked"),
        "edges_kept": value(BEST_EDGES),
        "edges_share": value("circuit/edges_share"),
        "nodes": value("circuit/nodes"),
        "faithfulness_discover": value(faithfulness_quantity("discover")),
        "faithfulness_held_out": value(faithfulness_quantity("held_out")),
        "normalised_faithfulness_held_out": value(faithfulness_quantity("held_out", "normalised")),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _count(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
