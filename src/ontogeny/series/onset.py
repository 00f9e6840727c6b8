"""When an ability appears (METHODS 6.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import pandas as pd

from ontogeny.params import TrajectoryParams
from ontogeny.series.table import headline

NEVER: Final = "never"
BEFORE_FIRST: Final = "before the first checkpoint"
FOUND: Final = "found"
OnsetStatus = Literal["found", "never", "before the first checkpoint"]


@dataclass(frozen=True)
class Onset:
    """The first checkpoint from which the value stays above a share of its rise, or why there is none."""

    status: OnsetStatus
    reason: str
    """One sentence; empty for `found`."""
    step: int | None
    tokens: int | None
    base: float
    """Level before learning."""
    peak: float
    """Largest value."""
    threshold: float
    """Level that counts as having appeared."""
    checkpoints: int
    """Values that were used."""
    left_out: int
    """Values that are missing, and checkpoints whose weights are those of an earlier step."""


def onset(
    steps: Sequence[int],
    tokens: Sequence[int],
    values: Sequence[float],
    errors: Sequence[float],
    params: TrajectoryParams,
    *,
    chance: float = 0.0,
    left_out: int = 0,
) -> Onset:
    """First checkpoint from which the value stays at or above the threshold for `params.sustain` checkpoints.

    Rule `base_33`: threshold = base + 0.33 (peak - base), where base is the mean over the checkpoints before 1 % of
    the last checkpoint's tokens, and only if peak - base exceeds 3 standard errors of that difference (the errors of
    the peak and of the base's checkpoints in quadrature; those of the base, from the same prompts, are averaged as if
    fully dependent). Where no checkpoint is that early, base = `chance`. Rule `cot_33` (circuits-over-time): the first
    value at or above 0.33 of the peak, no base, no sustaining, no test of significance beyond a positive peak.

    If the first checkpoint qualifies, the onset lies at it or before it, and the answer is
    `before the first checkpoint`.

    Args:
        steps: training steps, ascending.
        tokens: tokens seen at those steps.
        values: the ability's measure; NaN is left out, and counted.
        errors: standard errors of the values; NaN counts as 0.
        params: the rule and its constants.
        chance: the value of a model that knows nothing.
        left_out: checkpoints that the caller left out already.
    """
    finite = np.isfinite(np.asarray(values, dtype=float))
    step, token = np.asarray(steps)[finite], np.asarray(tokens, dtype=float)[finite]
    value = np.asarray(values, dtype=float)[finite]
    error = np.nan_to_num(np.asarray(errors, dtype=float)[finite])
    counts = {"checkpoints": len(value), "left_out": left_out + int((~finite).sum())}
    if not len(value):
        return Onset(NEVER, "no checkpoint has a value", None, None, math.nan, math.nan, math.nan, **counts)

    early = token < params.base_fraction * token[-1]
    plain = params.onset_rule == "cot_33"
    base = 0.0 if plain else float(value[early].mean()) if early.any() else chance
    peak = float(value.max())
    threshold = base + params.onset_fraction * (peak - base)
    base_error = float(error[early].mean()) if early.any() else 0.0
    needed = 0.0 if plain else params.standard_errors * math.hypot(error[value.argmax()], base_error)
    levels = (base, peak, threshold)
    if not peak - base > needed:
        reason = f"the rise of {peak - base:.3g} is within {needed:.3g}, {params.standard_errors:g} standard errors"
        return Onset(NEVER, "the value is never above 0" if plain else reason, None, None, *levels, **counts)

    first = _first_sustained(value >= threshold, 1 if plain else params.sustain)
    if first is None:
        reason = f"the value is not above {threshold:.3g} at {params.sustain} checkpoints in a row"
        return Onset(NEVER, reason, None, None, *levels, **counts)
    if first == 0:
        reason = f"the value is above {threshold:.3g} from the first checkpoint on"
        return Onset(BEFORE_FIRST, reason, None, None, *levels, **counts)
    return Onset(FOUND, "", int(step[first]), int(token[first]), *levels, **counts)


def onsets(table: pd.DataFrame, params: TrajectoryParams, *, confidence: float = 0.95) -> pd.DataFrame:
    """Onset of the behaviour of each member and task; one row each.

    Standard errors are the half widths of the `confidence` intervals over the normal quantile. Duplicates of an
    earlier checkpoint's weights are left out: they would confirm themselves.
    """
    quantile = NormalDist().inv_cdf(0.5 + confidence / 2)
    rows = []
    for keys, series in headline(table).groupby(["suite", "member", "scale", "seed", "task"], sort=False):
        kept = series[series["duplicate_of"].isna()].sort_values("step")
        errors = (kept["high"] - kept["low"]) / (2 * quantile)
        found = onset(
            kept["step"].to_list(),
            kept["tokens"].to_list(),
            kept["value"].to_list(),
            errors.to_list(),
            params,
            left_out=len(series) - len(kept),
        )
        names = ("suite", "member", "scale", "seed", "task")
        who = dict(zip(names, keys)) | {"parameters": series["parameters"].max()}
        rows.append(who | {"quantity": series["quantity"].iloc[0], "rule": params.onset_rule} | asdict(found))
    columns = ["suite", "member", "scale", "seed", "parameters", "task", "quantity", "rule"]
    frame = pd.DataFrame(rows, columns=columns + list(Onset.__dataclass_fields__))
    return frame.astype(dict.fromkeys(("seed", "parameters", "step", "tokens"), "Int64"))


def _first_sustained(above: np.ndarray, length: int) -> int | None:
    """First index that starts a run of at least `length` True."""
    run = 0
    for index, here in enumerate(above):
        run = run + 1 if here else 0
        if run == length:
            return index - length + 1
    return None
