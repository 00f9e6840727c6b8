"""Onsets across scale (METHODS 0, C1): differences in octaves of tokens, their trend, and where it ends."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.params import TrajectoryParams
from ontogeny.series.emergence import Emergence
from ontogeny.series.seeds import seed_noise, shifts

_GROUP: Final = ("suite", "task", "quantity")


@dataclass(frozen=True)
class ScaleOnset:
    """The onset of one quantity at one scale: the mean over its seeds."""

    scale: str
    parameters: float
    seeds: int
    never: int
    """Seeds without an onset, or with one before the first checkpoint: their place is unknown."""
    draws: Float[np.ndarray, " resamples"] | None
    """log2 tokens: what single series leave open, and the noise between seeds (`series.seeds`). None without onset."""


def onset_differences(found: Sequence[Emergence], params: TrajectoryParams) -> pd.DataFrame:
    """Every pair of scales of a suite, task and quantity: the larger one's onset minus the smaller one's, in octaves.

    `octaves` < 0: the larger model is earlier. The interval `low`, `high` has the params' confidence, `low_alike` and
    `high_alike` are for the test of likeness (90 %): `alike` is True if they lie within ±1 octave, False if wholly
    outside, and missing in between. The noise between training runs is estimated from all scales that have seeds; if
    none has two, the intervals leave it out. Scales whose size is unknown are in no pair.
    """
    rows = []
    for who, scales in _groups(found, params):
        sized = [each for each in scales if math.isfinite(each.parameters)]
        for a, b in itertools.combinations(sized, 2):
            rows.append(who | _pair(a, b, params))
    columns = [
        *_GROUP, "smaller", "larger", "smaller_parameters", "larger_parameters", "smaller_seeds", "larger_seeds",
        "octaves", "low", "high", "low_alike", "high_alike", "alike", "status",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).astype({"alike": "boolean"})


def onset_trend(found: Sequence[Emergence], params: TrajectoryParams) -> pd.DataFrame:
    """One row a suite, task and quantity: the onset against log parameters, and the scale where it stops falling.

    `slope` is in octaves of tokens an octave of parameters (least squares over scales). `stops_at` is the smallest
    scale that no larger scale is earlier than, by an interval of their difference that lies below 0; `unseen` is how
    many octaves earlier a larger scale may still be by that interval. `status`: `stops`, `falls on` (the largest scale
    is the only one like that), or `undecided` with fewer than 2 scales that have an onset.
    """
    rows = []
    for who, scales in _groups(found, params):
        known = [each for each in scales if each.draws is not None and math.isfinite(each.parameters)]
        counts: dict[str, Any] = {"scales": len(scales), "with_onset": sum(each.draws is not None for each in scales)}
        counts["without"] = ", ".join(each.scale for each in scales if each.draws is None)
        rows.append(who | counts | (_trend(known, params) if len(known) > 1 else {"status": "undecided"}))
    columns = [
        *_GROUP, "scales", "with_onset", "without", "slope", "slope_low", "slope_high", "stops_at", "unseen", "status",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _groups(found: Sequence[Emergence], params: TrajectoryParams) -> Iterator[tuple[dict[str, Any], list[ScaleOnset]]]:
    """Who, and its scales from the smallest to the largest; groups of a single scale are left out."""
    keyed: dict[tuple[Any, ...], dict[str, list[Emergence]]] = {}
    for each in found:
        key = tuple(each.who[name] for name in _GROUP)
        keyed.setdefault(key, {}).setdefault(str(each.who["scale"]), []).append(each)
    for key, by_scale in keyed.items():
        if len(by_scale) > 1:
            text = "/".join(map(str, key))
            rng = np.random.default_rng([params.seed, zlib.crc32(text.encode())])
            yield dict(zip(_GROUP, key)), sorted(_scales(by_scale, rng), key=lambda s: (s.parameters, s.scale))


def _scales(by_scale: Mapping[str, Sequence[Emergence]], rng: np.random.Generator) -> Iterator[ScaleOnset]:
    """Each scale; the noise between seeds is that of all."""
    draws = {name: [e.rise.draws for e in seeds if e.rise is not None] for name, seeds in by_scale.items()}
    known = {name: np.stack(each) for name, each in draws.items() if each}
    own = float(np.mean([each.var() for stacked in known.values() for each in stacked])) if known else 0.0
    noise = seed_noise([np.median(stacked, axis=1).tolist() for stacked in known.values()], own)
    counts, length = [len(stacked) for stacked in known.values()], next((s.shape[1] for s in known.values()), 0)
    off = dict(zip(known, shifts(noise, counts, length, rng)))
    for name, seeds in by_scale.items():
        size = seeds[0].who["parameters"]
        parameters = math.inf if pd.isna(size) else float(size)
        number = len(draws[name])
        onset = known[name].mean(axis=0) + off[name] if number else None
        yield ScaleOnset(name, parameters, number, len(seeds) - number, onset)


def _pair(a: ScaleOnset, b: ScaleOnset, params: TrajectoryParams) -> dict[str, Any]:
    who = {
        "smaller": a.scale,
        "larger": b.scale,
        "smaller_parameters": a.parameters,
        "larger_parameters": b.parameters,
        "smaller_seeds": a.seeds,
        "larger_seeds": b.seeds,
    }
    if a.draws is None or b.draws is None:
        without = ", ".join(each.scale for each in (a, b) if each.draws is None)
        return who | {"alike": None, "status": f"no onset at {without}"}
    difference = b.draws - a.draws
    low, middle, high = _interval(difference, params.confidence)
    least, _, most = _interval(difference, params.claims.alike_confidence)
    margin = params.claims.alike_octaves
    inside, outside = least >= -margin and most <= margin, least > margin or most < -margin
    numbers = {"octaves": middle, "low": low, "high": high, "low_alike": least, "high_alike": most}
    return who | numbers | {"alike": True if inside else False if outside else None, "status": "measured"}


def _trend(scales: Sequence[ScaleOnset], params: TrajectoryParams) -> dict[str, Any]:
    size = np.log2([each.parameters for each in scales])
    draws = np.stack([each.draws for each in scales if each.draws is not None])
    centred = size - size.mean()
    low, slope, high = _interval(centred @ draws / (centred @ centred), params.confidence)
    at, unseen = _stops(draws, params.confidence)
    row = {"slope": slope, "slope_low": low, "slope_high": high}
    if at == len(scales) - 1:
        return row | {"stops_at": "", "status": "falls on"}
    return row | {"stops_at": scales[at].scale, "unseen": unseen, "status": "stops"}


def _stops(draws: Float[np.ndarray, "scales resamples"], confidence: float) -> tuple[int, float]:
    """First scale that no larger one is surely earlier than, and by how many octaves one may be earlier."""
    for at in range(len(draws) - 1):
        intervals = [_interval(later - draws[at], confidence) for later in draws[at + 1 :]]
        if all(high >= 0 for _, _, high in intervals):
            return at, max(0.0, -min(low for low, _, _ in intervals))
    return len(draws) - 1, 0.0


def _interval(draws: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Percentile interval with the median in the middle."""
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(draws, [tail, 0.5, 1 - tail])
    return float(low), float(middle), float(high)
