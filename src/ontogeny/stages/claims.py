"""The paper's claims and their verdicts on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ontogeny.stages.terminal import new_table, number

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_COLOURS = {"supported": "green", "contradicted": "red", "other algorithm": "magenta"}


def claims_table(claims: pd.DataFrame, *, wide: bool = True) -> Table:
    """One row a claim: what it says, the verdict on the whole, the statistic that decided and what it is, and why."""
    from ontogeny.series.claims import ALL

    shown = ["", "claim", "verdict", "statistic", "why"] if wide else ["", "verdict", "why"]
    title = "The paper's claims (rules: claims.json among the tables; documentation: Statistics and verdicts)"
    table = new_table(title, *shown[:1], narrow=not wide)
    for name in shown[1:]:
        table.add_column(name, justify="left", overflow="fold")
    for row in claims[claims["about"] == ALL].to_dict("records"):
        cells = _cells(row)
        table.add_row(*(cells[name] for name in shown))
    return table


def parts_table(claims: pd.DataFrame) -> Table:
    """One row a verdict on a part of a claim: a task, role, metric or member."""
    from ontogeny.series.claims import ALL

    table = new_table("Verdicts on the parts of the claims")
    for name in ("", "about", "verdict", "statistic", "why"):
        table.add_column(name, justify="left", overflow="fold")
    for row in claims[claims["about"] != ALL].to_dict("records"):
        cells = _cells(row) | {"about": str(row["about"])}
        table.add_row(*(cells[str(column.header)] for column in table.columns))
    return table


def _cells(row: Mapping[Any, Any]) -> dict[str, str]:
    verdict = str(row["verdict"])
    colour = _COLOURS.get(verdict)
    between = f" ({number(row['low'])} to {number(row['high'])})" if math.isfinite(row["low"]) else ""
    found = f"{number(row['statistic'])}{between}: {row['measured']}" if math.isfinite(row["statistic"]) else "-"
    return {
        "": str(row["claim"]),
        "claim": str(row["sentence"]),
        "verdict": f"[{colour}]{verdict}[/{colour}]" if colour else verdict,
        "statistic": found,
        "why": str(row["reason"]),
    }
