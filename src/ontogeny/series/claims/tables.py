"""Verdicts as a table, as a tree for people and programs, and as the few numbers that DVC compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from ontogeny.params import ClaimsParams
from ontogeny.series.claims.values import ALL, Claim, texts

COLUMNS: Final = (
    "claim", "about", "verdict", "statistic", "low", "high", "reason", "sentence", "measured", "rule",
)  # fmt: skip
_NUMBERS: Final = ("statistic", "low", "high")


def claims_table(claims: Sequence[Claim], rules: ClaimsParams) -> pd.DataFrame:
    """One row a verdict, with what is claimed, what the statistic is, and the rule that decides."""
    known = texts(rules)
    rows = [asdict(each) | dict(zip(COLUMNS[-3:], known[each.claim])) for each in claims]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def claims_tree(table: pd.DataFrame) -> dict[str, Any]:
    """Claim -> what it says, the rule, the verdict on the whole, and those on its parts; null where undefined."""
    tree: dict[str, Any] = {}
    for row in table.to_dict("records"):
        judged = {"verdict": row["verdict"], "why": row["reason"]} | {name: _number(row[name]) for name in _NUMBERS}
        if row["about"] == ALL:
            texts_ = {"claim": row["sentence"], "statistic_is": row["measured"], "rule": row["rule"]}
            tree[str(row["claim"])] = texts_ | judged | {"parts": {}}
        else:
            tree[str(row["claim"])]["parts"][str(row["about"])] = judged
    return tree


def claim_metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """``claims`` -> claim -> verdict, statistic, interval, and how many parts have each verdict."""
    metrics: dict[str, dict[str, Any]] = {}
    for claim, rows in table.groupby("claim", sort=False):
        whole = rows[rows["about"] == ALL].iloc[0]
        counts = rows[rows["about"] != ALL]["verdict"].value_counts()
        numbers = {name: _number(whole[name]) for name in _NUMBERS}
        parts = {f"parts_{name}": int(counts.get(name, 0)) for name in ("supported", "contradicted")}
        metrics[str(claim)] = {"verdict": str(whole["verdict"])} | numbers | parts
    return {"claims": metrics}


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
