"""The life of a series: when it appears, how surely, whether it dips before, levels off, and is lost again.

One row a series; the columns are explained in docs/series.md. `emergences` takes any tidy table, so a behaviour, the
score of a head's role and the accuracy in somebody's CSV are treated alike.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from ontogeny.params import TrajectoryParams
from ontogeny.series.onset import BEFORE_FIRST, FOUND, NEVER, Onset, onset, unevenness
from ontogeny.series.rise import Rise, fit_rise

SERIES: Final = ("suite", "member", "scale", "seed", "parameters", "task", "quantity")
"""The columns that say which series a row belongs to."""

Ending = Literal["kept", "lower", "lost"]


@dataclass(frozen=True)
class Dip:
    """The lowest value before the onset (METHODS 0, C9)."""

    lowest: float
    step: int
    dips: bool
    """More than 3 standard errors below the base."""
    below_zero: bool
    """More than 3 standard errors below 0."""


@dataclass(frozen=True)
class End:
    """What is left of the ability at the end (METHODS 0, C8). Levels are means of `sustain` checkpoints in a row."""

    best: float
    """The highest level from the onset on."""
    final: float
    """The last level."""
    kept: float
    """(final - base) / (best - base)."""
    kept_error: float
    """Its standard error."""
    ending: Ending
    """`lower`: more than 3 standard errors below the best; `lost`: below the onset's threshold, too; else `kept`."""


@dataclass(frozen=True)
class Emergence:
    """One series."""

    who: Mapping[str, Any]
    """`SERIES` by name."""
    rule: str
    onset: Onset
    gap: float
    """Octaves of tokens between the onset's checkpoint and the one before; NaN without an onset."""
    rise: Rise | None
    """Only where an onset was found."""
    dip: Dip | None
    end: End | None
    in_order: bool
    """Whether the order of its checkpoints matters (`ordered`)."""


@dataclass(frozen=True)
class _Points:
    """The values of a series that can be used, by ascending tokens."""

    steps: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    """Standard errors; NaN where unknown."""
    left_out: int


def emergences(
    table: pd.DataFrame,
    params: TrajectoryParams,
    *,
    confidence: float = 0.95,
    chance: float = 0.0,
    least_peak: Mapping[str, float] | None = None,
) -> list[Emergence]:
    """Every series of a tidy table, in its order.

    Left out of a series, and counted: values that are not finite, and checkpoints whose weights (`duplicate_of`) or
    tokens are those of an earlier one.

    Args:
        table: as `series.tidy` makes it.
        params: the onset rule and the bootstrap.
        confidence: of the intervals in the table, which are turned into standard errors.
        chance: the value of a model that knows nothing, where no checkpoint is early enough to show it.
        least_peak: by quantity, what the peak must reach at least.
    """
    least = least_peak or {}
    return [
        _emergence(who, _points(rows, confidence), params, chance, least.get(str(who["quantity"]), -math.inf))
        for who, rows in series_of(table)
    ]


def onset_tokens(found: Sequence[Emergence]) -> dict[tuple[str, str], float]:
    """(member, task) -> tokens from which on the ability is there: 0 before the first checkpoint, infinite if never."""
    first = {FOUND: 0.0, BEFORE_FIRST: 0.0, NEVER: math.inf}
    return {(str(e.who["member"]), str(e.who["task"])): e.onset.tokens or first[e.onset.status] for e in found}


def ordered(values: Sequence[float] | np.ndarray, level: float = 0.01) -> bool:
    """Whether neighbours are more alike than checkpoints in a random order would be, at `level`.

    Von Neumann's ratio, the sum of squared differences of neighbours over twice the sum of squares around the mean: in
    a random order its mean is 1 and its variance (n - 2) / (n^2 - 1).
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    count, around = len(finite), float(((finite - finite.mean()) ** 2).sum()) if len(finite) else 0.0
    if count < 4 or around == 0:
        return False
    ratio = float((np.diff(finite) ** 2).sum()) / (2 * around)
    return (ratio - 1) / math.sqrt((count - 2) / (count**2 - 1)) < NormalDist().inv_cdf(level)


def series_of(table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Who each series is, and its rows by ascending step."""
    keys = [name for name in SERIES if name != "parameters"]
    for values, rows in table.groupby(keys, sort=False, dropna=False):
        who = dict(zip(keys, values)) | {"parameters": rows["parameters"].max()}
        yield who, rows.sort_values("step", kind="stable")


def emergence_table(found: Sequence[Emergence]) -> pd.DataFrame:
    """One row a series."""
    frame = pd.DataFrame([_row(each) for each in found], columns=_COLUMNS)
    whole = ("seed", "parameters", "step", "tokens", "lowest_step")
    return frame.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(("agrees", "dips", "below_zero"), "boolean"))


_ONSET: Final = list(Onset.__dataclass_fields__)
_COLUMNS: Final = [
    *SERIES, "rule", *_ONSET, "gap_octaves", "onset_tokens", "onset_low", "onset_high", "agrees",
    "plateau", "plateau_tokens", "plateau_status", "lowest", "lowest_step", "dips", "below_zero",
    "best", "final", "kept", "kept_error", "ending", "in_order",
]  # fmt: skip


def _row(each: Emergence) -> dict[str, Any]:
    row = {**each.who, "rule": each.rule, **asdict(each.onset), "gap_octaves": each.gap, "in_order": each.in_order}
    if each.rise is not None:
        ends = {"onset_tokens": each.rise.onset, "onset_low": each.rise.low, "onset_high": each.rise.high}
        row |= {name: 2.0**place for name, place in ends.items()}
        row |= {"agrees": agrees(each), "plateau": each.rise.top, "plateau_tokens": 2.0**each.rise.plateau}
        row |= {"plateau_status": each.rise.plateau_status}
    if each.dip is not None:
        row |= {"lowest": each.dip.lowest, "lowest_step": each.dip.step}
        row |= {"dips": each.dip.dips, "below_zero": each.dip.below_zero}
    if each.end is not None:
        row |= asdict(each.end)
    return row


def agrees(each: Emergence) -> bool | None:
    """Whether the interval touches the gap before the rule's checkpoint; None where one of them is missing."""
    if each.rise is None or each.onset.tokens is None:
        return None
    place = math.log2(each.onset.tokens)
    return each.rise.low <= place and each.rise.high >= place - each.gap


# --- One series -----------------------------------------------------------------------------------------------------


def _points(rows: pd.DataFrame, confidence: float) -> _Points:
    quantile = NormalDist().inv_cdf(0.5 + confidence / 2)
    errors = ((rows["high"] - rows["low"]) / (2 * quantile)).to_numpy(float)
    usable = np.isfinite(rows["value"].to_numpy(float)) & rows["tokens"].notna().to_numpy()
    usable &= rows["duplicate_of"].isna().to_numpy() & ~rows["tokens"].duplicated().to_numpy()
    kept = rows[usable]
    tokens = kept["tokens"].to_numpy(float)
    order = np.argsort(tokens, kind="stable")
    return _Points(
        kept["step"].to_numpy(int)[order],
        tokens[order],
        kept["value"].to_numpy(float)[order],
        errors[usable][order],
        len(rows) - len(kept),
    )


def _emergence(
    who: Mapping[str, Any], points: _Points, params: TrajectoryParams, chance: float, least_peak: float
) -> Emergence:
    answer = onset(
        points.steps.tolist(), points.tokens.astype(int).tolist(), points.values.tolist(), points.errors.tolist(),
        params, chance=chance, least_peak=least_peak, left_out=points.left_out,
    )  # fmt: skip
    in_order = ordered(points.values)
    if answer.status not in (FOUND, BEFORE_FIRST):
        return Emergence(who, params.onset_rule, answer, math.nan, None, None, None, in_order)
    errors = np.fmax(np.nan_to_num(points.errors), np.nan_to_num(answer.noise))
    first = int(np.argmax(points.steps == answer.step)) if answer.step is not None else 0
    end = _end(points.values[first:], errors[first:], answer, params)
    if answer.status == BEFORE_FIRST:
        return Emergence(who, params.onset_rule, answer, math.nan, None, None, end, in_order)
    rise = fit_rise(
        points.tokens,
        points.values,
        fraction=params.onset_fraction,
        resamples=params.resamples,
        confidence=params.confidence,
        rng=np.random.default_rng([params.seed, _number_of(who)]),
    )
    dip = _dip(points.steps[:first], points.values[:first], errors[:first], answer.base, params)
    gap = math.log2(points.tokens[first] / points.tokens[first - 1]) if points.tokens[first - 1] > 0 else math.inf
    return Emergence(who, params.onset_rule, answer, gap, rise, dip, end, in_order)


def _number_of(who: Mapping[str, Any]) -> int:
    """A number of a series' own, so that its resamples do not depend on which others are looked at."""
    return zlib.crc32("/".join(str(who[name]) for name in ("suite", "member", "task", "quantity")).encode())


def _dip(steps: np.ndarray, values: np.ndarray, errors: np.ndarray, base: float, params: TrajectoryParams) -> Dip:
    at = int(values.argmin())
    lowest, needed = float(values[at]), params.standard_errors * float(errors[at])
    return Dip(
        lowest,
        int(steps[at]),
        dips=base - lowest > math.sqrt(2) * needed,
        below_zero=lowest < -needed,
    )


def _end(values: np.ndarray, errors: np.ndarray, answer: Onset, params: TrajectoryParams) -> End | None:
    """None where fewer than `sustain` checkpoints follow the onset.

    All checkpoints are measured on the same prompts, so that `kept` is off by what values after the onset differ by
    from one to the next; of fewer than 4 values the standard errors stand in.
    """
    length = params.sustain
    if len(values) < length:
        return None
    levels = np.convolve(values, np.full(length, 1 / length), mode="valid")
    error = np.convolve(errors, np.full(length, 1 / length), mode="valid")
    at = int(levels.argmax())
    best, final = float(levels[at]), float(levels[-1])
    lower = best - final > params.standard_errors * math.hypot(error[at], error[-1])
    ending: Ending = "kept" if not lower else "lost" if final < answer.threshold else "lower"
    span = best - answer.base
    if not span > 0:
        return End(best, final, math.nan, math.nan, ending)
    kept, noise = (final - answer.base) / span, unevenness(values)
    off = (noise, noise) if math.isfinite(noise) else (float(error[-1]), float(error[at]))
    return End(best, final, kept, math.hypot(off[0], kept * off[1]) / span, ending)
