"""Circuit size against model size (METHODS 8.4): one point a scale and task, and their correlations.

Only searches over the whole graph count (`full`): a cap of a share of the edges would make sizes grow with the graph by
itself. A checkpoint whose search failed has no size; it is left out and counted (`censored`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from ontogeny.core.results import ModelFacts
from ontogeny.series.emergence import Emergence, onset_tokens
from ontogeny.series.quantities import CAP, EDGES, NODES

Kind = Literal["pearson", "spearman"]
WHAT: Final = ("edges", "nodes")
AGAINST: Final = ("parameters", "log_parameters", "log_graph_edges")
LEAST: Final = 5
"""Points below which nothing is said: even a perfect order of four has p = 1/12."""
_EXACT: Final = 8
"""Points of which all 40,320 orders are looked at."""
POINT_COLUMNS: Final = (
    "suite", "task", "scale", "layers", "heads", "d_model", "parameters", "graph_edges", "members", "without_onset",
    "checkpoints", "octaves", "censored", "other", "duplicates", "not_full", "edges", "nodes", "edges_variation",
    "nodes_variation", "status",
)  # fmt: skip
_LEFT_OUT: Final = ("censored", "other", "duplicates", "not_full")


class Correlation(NamedTuple):
    """A correlation, the ends of its 95 % interval, and the two-sided p of none."""

    value: float
    low: float
    high: float
    p: float


def size_points(table: pd.DataFrame, models: Mapping[str, ModelFacts], abilities: Sequence[Emergence]) -> pd.DataFrame:
    """One row a suite, task and scale: mean sizes of the circuits from the onset on, a mean over its members.

    `checkpoints` and `octaves` are those of the member with the fewest sizes. Left out are checkpoints at which the
    threshold was not met (`censored`), no circuit was looked for although the search was full (`other`), the search was
    not full (`not_full`), or the weights are an earlier step's (`duplicates`). `status`: `measured`, or why there is no
    size.

    Args:
        table: tidy.
        models: of each member.
        abilities: the behaviours; where one has no onset the member has no size.
    """
    starts = onset_tokens(abilities)
    rows = table[table["quantity"].isin([EDGES, NODES, CAP])]
    sizes = [
        (keys, _of_member(part, models[str(keys[3])], starts.get((str(keys[3]), str(keys[1])), math.inf)))
        for keys, part in rows.groupby(["suite", "task", "scale", "member"], sort=False)
    ]
    groups: dict[tuple[str, str, str], list[tuple[ModelFacts, dict[str, Any]]]] = {}
    for (suite, task, scale, member), size in sizes:
        groups.setdefault((str(suite), str(task), str(scale)), []).append((models[str(member)], size))
    points = [dict(zip(POINT_COLUMNS, keys)) | _of_scale(found) for keys, found in groups.items()]
    return pd.DataFrame(points, columns=list(POINT_COLUMNS))


def size_correlations(points: pd.DataFrame) -> pd.DataFrame:
    """Pearson and Spearman of each size against each measure of the model, by task; the points without a size counted.

    Scales of the same shape (layers, heads, width) are one point.
    """
    rows = []
    for (suite, task), here in points.groupby(["suite", "task"], sort=False):
        used = distinct(here)
        for what in WHAT:
            for against in AGAINST:
                for kind in ("pearson", "spearman"):
                    found = correlation(size_of(used, against), used[what].to_numpy(float), kind)
                    counts = {"points": len(used), "left_out": len(here) - int((here["status"] == "measured").sum())}
                    rows.append(
                        {"suite": suite, "task": task, "what": what, "against": against, "kind": kind}
                        | found._asdict()
                        | counts
                    )
    columns = ["suite", "task", "what", "against", "kind", *Correlation._fields, "points", "left_out"]
    return pd.DataFrame(rows, columns=columns)


def distinct(points: pd.DataFrame) -> pd.DataFrame:
    """The points with a size, those of one shape averaged."""
    used = points[points["status"] == "measured"]
    return used.groupby(["layers", "heads", "d_model"], sort=False)[["parameters", "graph_edges", *WHAT]].mean()


def size_of(points: pd.DataFrame, against: str) -> np.ndarray:
    """One of `AGAINST`; logarithms are to base 2."""
    name = against.removeprefix("log_")
    values = points[name].to_numpy(float)
    return np.log2(values) if against.startswith("log_") else values


def correlation(x: np.ndarray, y: np.ndarray, kind: Kind) -> Correlation:
    """With a 95 % interval: Fisher's z, standard error 1 / sqrt(n - 3); of ranks sqrt((1 + r^2 / 2) / (n - 3)).

    The second is Bonett and Wright's (2000). Of ranks in perfect order, which has no such interval, it is that of half
    a step of r less; p of at most 8 ranks is that of all their orders. NaN for fewer than 5 points or where one side
    does not vary.
    """
    from scipy.stats import pearsonr, spearmanr

    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, math.nan, math.nan)
    n, found = len(x), pearsonr(x, y) if kind == "pearson" else spearmanr(x, y)
    r, p = float(np.clip(found.statistic, -1.0, 1.0)), float(found.pvalue)
    r = float(round(r)) if 1 - abs(r) < 1e-12 else r
    if kind == "spearman" and n <= _EXACT:
        p = _p_of_orders(x, y, r)
    if abs(r) == 1 and kind == "pearson":
        return Correlation(r, r, r, p)
    most = 1 - 3 / (n * (n * n - 1))
    z = math.atanh(min(max(r, -most), most)) if kind == "spearman" else math.atanh(r)
    error = math.sqrt((1 + r * r / 2 if kind == "spearman" else 1.0) / (n - 3))
    half = NormalDist().inv_cdf(0.975) * error
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Correlation(r, min(r, low), max(r, high), p)


def _p_of_orders(x: np.ndarray, y: np.ndarray, r: float) -> float:
    """Share of all orders of y whose rank correlation with x is at least as far from 0."""
    from scipy.stats import rankdata

    a, b = (rankdata(side) - (len(side) + 1) / 2 for side in (x, y))
    orders = np.array(list(itertools.permutations(b)))
    others = orders @ a / math.sqrt((a @ a) * (b @ b))
    return float(np.mean(np.abs(others) >= abs(r) - 1e-9))


def _of_member(rows: pd.DataFrame, model: ModelFacts, start: float) -> dict[str, Any]:
    """Sizes from the onset on."""
    if math.isinf(start):
        return {"status": "no onset"}
    later = rows[rows["tokens"].astype(float) >= start]
    fresh = later[later["duplicate_of"].isna()]
    wide = fresh.pivot(index="tokens", columns="quantity", values="value").sort_index()
    status = fresh[fresh["quantity"] == EDGES].set_index("tokens")["status"].reindex(wide.index)
    full = wide[CAP] >= model.graph.n_edges
    kept = full & (status == "found")
    found = wide[kept]
    counts = {
        "checkpoints": len(found),
        "censored": int((full & (status == "threshold_unmet")).sum()),
        "other": int((full & ~status.isin(["found", "threshold_unmet"])).sum()),
        "not_full": int((~full).sum()),
        "duplicates": int(later.loc[later["duplicate_of"].notna(), "tokens"].nunique()),
    }
    if not len(found):
        return counts | {"status": "no circuit was found" if full.any() else "not searched in full"}
    places = np.log2(found.index.to_numpy(float))
    numbers: dict[str, Any] = {"octaves": float(places[-1] - places[0]), "status": "measured"}
    for name, quantity in zip(WHAT, (EDGES, NODES)):
        values = found[quantity].to_numpy(float)
        numbers[name] = float(values.mean())
        numbers[f"{name}_variation"] = float(values.std(ddof=1) / values.mean()) if len(values) > 1 else math.nan
    return counts | numbers


def _of_scale(found: Sequence[tuple[ModelFacts, dict[str, Any]]]) -> dict[str, Any]:
    """The mean over members that have a size, and what was left out."""
    model = found[0][0]
    sizes = [size for _, size in found if size["status"] == "measured"]
    row: dict[str, Any] = {
        "layers": model.graph.n_layers,
        "heads": model.graph.n_heads,
        "d_model": model.d_model,
        "parameters": model.parameters,
        "graph_edges": model.graph.n_edges,
        "members": len(found),
        "without_onset": sum(size["status"] == "no onset" for _, size in found),
        "status": "measured" if sizes else found[0][1]["status"],
    }
    row |= {name: sum(size.get(name, 0) for _, size in found) for name in _LEFT_OUT}
    row |= {name: min((size[name] for size in sizes), default=0) for name in ("checkpoints", "octaves")}
    names = [f"{what}{suffix}" for what in WHAT for suffix in ("", "_variation")]
    return row | {name: float(np.mean([size[name] for size in sizes])) if sizes else math.nan for name in names}
