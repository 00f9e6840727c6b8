"""Is it the same mechanism: over time, and over seeds (METHODS 8.2); and what a role's heads are worth (0.1 C2).

Quantities added to the tidy table, at the anchors:

    transfer/to_final/raw, normalised      this step's circuit in the model of the last anchor
    transfer/from_final/raw, normalised    the last anchor's circuit in this step's model
    transfer/seeds_HEADS/raw, normalised   mean over the circuits of other seeds at the same step; HEADS is
                                           unmatched, matched (by role vectors) or random (heads shuffled in layers)
    ablation/ROLE/cost_share, beaten       of the heads that hold the role at this step
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pandas as pd

from ontogeny.core.roles import head_names
from ontogeny.params import split_member
from ontogeny.records import MemberRecord, TransferRecord
from ontogeny.series.roles import TASK_OF
from ontogeny.series.table import as_table

_WHO: Final = ("suite", "member", "scale", "seed", "parameters")
TRANSFER_COLUMNS: Final = (
    *_WHO, "task", "step", "tokens", "source_member", "source_step", "source_tokens", "heads", "status", "kept",
    "metric", "raw", "normalised", "jaccard",
)  # fmt: skip
ABLATION_COLUMNS: Final = (
    *_WHO, "task", "role", "step", "tokens", "final", "status", "reason", "heads", "cost", "cost_share", "sets",
    "possible", "sets_mean", "sets_p95", "beaten",
)  # fmt: skip
COMPARED: Final[Mapping[str, str]] = {
    "at_home": "own",
    "over_time": "own",
    "shuffled": "random",
    "seeds_unmatched": "unmatched",
    "seeds_matched": "matched",
    "seeds_shuffled": "random",
}
"""What `alikeness` compares, and which naming of heads each is about."""
_COUNTS: Final = ("seed", "parameters", "step", "tokens", "source_step", "source_tokens", "kept", "sets", "possible")
_FORMS: Final = ("raw", "normalised")


def transfer_table(transfers: Sequence[TransferRecord], records: Sequence[MemberRecord]) -> pd.DataFrame:
    """One row for each circuit in each model that it was carried to, measured or not."""
    known = {record.member: _Member(record) for record in records}
    rows = [
        known[record.member].who(record)
        | asdict(row)
        | {"tokens": known[record.member].tokens.get(row.step)}
        | {"source_tokens": known[row.source_member].tokens.get(row.source_step)}
        for record in transfers
        for row in record.transfers
    ]
    return _typed(pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS)))


def ablation_table(transfers: Sequence[TransferRecord], records: Sequence[MemberRecord]) -> pd.DataFrame:
    """One row a member, anchor, task and role; `final` is True at the last anchor, `heads` names them."""
    known = {record.member: _Member(record) for record in records}
    rows = [
        known[record.member].who(record)
        | asdict(row)
        | {"tokens": known[record.member].tokens.get(row.step), "heads": " ".join(head_names(row.heads))}
        | {"final": row.step == record.anchors[-1]}
        for record in transfers
        for row in record.ablations
    ]
    return _typed(pd.DataFrame(rows, columns=list(ABLATION_COLUMNS)))


def sets_beaten(ablations: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(role, member) -> share of matched sets of heads that cost less than the role's, at the last anchor (C2).

    On the task that the role is about (`TASK_OF`), and only where there are enough sets for a share to say something.
    """
    about = ablations["role"].map(TASK_OF) == ablations["task"]
    of = ablations[about & ablations["final"].astype(bool) & (ablations["status"] == "measured")]
    return {(str(r), str(m)): float(share) for r, m, share in zip(of["role"], of["member"], of["beaten"])}


def transfer_measures(transfers: pd.DataFrame, ablations: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows of the quantities above."""
    rows: list[tuple[object, ...]] = []
    for _, table in transfers.groupby("member", sort=False):
        own, last = table[(table["heads"] == "own")], table["step"].max()
        rows += _rows(own[own["step"] == last], "to_final", at="source_")
        rows += _rows(own[own["source_step"] == last], "from_final")
        others = table[table["source_member"] != table["member"]]
        for heads, part in others.groupby("heads", sort=False):
            mean = part.groupby(["task", "step"], sort=False, as_index=False).agg(_mean_of)
            rows += _rows(mean, f"seeds_{heads}")
    for row in ablations.to_dict("records"):
        for name in ("cost_share", "beaten"):
            rows.append(_tidy(row, f"ablation/{row['role']}/{name}", row[name], str(row["status"])))
    return as_table(rows)


def alikeness(transfers: pd.DataFrame) -> pd.DataFrame:
    """Over time against over seeds: one row a scale, task and kind of pair (`COMPARED`).

    `over_time` are the circuits of one member at its other anchors; `shuffled` the same with heads shuffled within
    layers. Of the faithfulness and the Jaccard index of the edges: median, least and largest over all pairs of
    checkpoints (for seeds: of the same step) and over the members of the scale.
    """
    rows = []
    measured = transfers[transfers["status"] == "measured"]
    foreign = measured["source_member"] != measured["member"]
    at_home = ~foreign & (measured["source_step"] == measured["step"])
    for what, heads in COMPARED.items():
        place = foreign if what.startswith("seeds_") else at_home if what == "at_home" else ~foreign & ~at_home
        for (scale, task), part in measured[place & (measured["heads"] == heads)].groupby(
            ["scale", "task"], sort=False
        ):
            row = {
                "scale": scale,
                "parameters": part["parameters"].max(),
                "task": task,
                "what": what,
                "pairs": len(part),
            }
            for name in ("raw", "normalised", "jaccard"):
                low, middle, high = _quantiles(part[name])
                row |= {f"{name}_low": low, name: middle, f"{name}_high": high}
            rows.append(row)
    numbers = [f"{name}{end}" for name in ("raw", "normalised", "jaccard") for end in ("_low", "", "_high")]
    frame = pd.DataFrame(rows, columns=["scale", "parameters", "task", "what", "pairs", *numbers])
    kinds = {"scale": "str", "task": "str", "what": "str", "parameters": "Int64", "pairs": "Int64"}
    return frame.astype(kinds | dict.fromkeys(numbers, "float64"))


class _Member:
    """What a member's record says of its model and steps."""

    def __init__(self, record: MemberRecord) -> None:
        self.tokens = {analysis.ref.step: analysis.ref.tokens for analysis in record.analyses}
        self.parameters = record.analyses[-1].model.parameters if record.analyses else None

    def who(self, record: TransferRecord) -> dict[str, Any]:
        scale, seed = split_member(record.member)
        known = (record.suite, record.member, scale, seed, self.parameters)
        return dict(zip(_WHO, known))


def _rows(rows: pd.DataFrame, what: str, at: str = "") -> Iterator[tuple[object, ...]]:
    """Both forms, at the step of the target or (`at`) of the source."""
    for row in rows.to_dict("records"):
        here = row | {"step": row[f"{at}step"], "tokens": row[f"{at}tokens"]}
        for form in _FORMS:
            yield _tidy(here, f"transfer/{what}/{form}", row[form], str(row["status"]))


def _tidy(row: Mapping[Any, Any], quantity: str, value: float, status: str) -> tuple[object, ...]:
    who = (*(row[name] for name in _WHO), row["step"], row["tokens"], row["task"])
    return (*who, quantity, value, math.nan, math.nan, status, None)


def _mean_of(column: pd.Series) -> Any:
    """Mean of the numbers that there are; of words the first, but `measured` if any is."""
    if column.name in ("raw", "normalised", "metric", "jaccard"):
        return column.mean()
    return "measured" if column.name == "status" and (column == "measured").any() else column.iloc[0]


def _quantiles(values: pd.Series) -> tuple[float, float, float]:
    seen = values[np.isfinite(values)]
    return (float(seen.min()), float(seen.median()), float(seen.max())) if len(seen) else (math.nan,) * 3


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Fixed types, also of an empty table."""
    numbers = {"metric", "raw", "normalised", "jaccard", "cost", "cost_share", "sets_mean", "sets_p95", "beaten"}
    kinds = {
        name: "Int64" if name in _COUNTS else "float64" if name in numbers else "bool" if name == "final" else "str"
        for name in frame.columns
    }
    return frame.astype(kinds)
