"""The colour of a scale: the same in every picture and in MLflow."""

from __future__ import annotations

from typing import Final

import pandas as pd

_RAMP: Final = ("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151")
"""Matplotlib's viridis from 0 to 0.8 in equal steps: even in lightness, and told apart by colour-blind readers."""


def scale_colours(rows: pd.DataFrame) -> dict[str, str]:
    """A colour for each scale, dark for the largest; the same scales always get the same colours.

    `rows` needs the columns scale and parameters.
    """
    sizes = rows.groupby("scale")["parameters"].max().sort_values(kind="stable", ascending=False)
    places = [0.5] if len(sizes) == 1 else [place / (len(sizes) - 1) for place in range(len(sizes))]
    return {str(scale): _blend(place * (len(_RAMP) - 1)) for scale, place in zip(sizes.index, places)}


def _blend(place: float) -> str:
    """Colour at a place between two neighbours of the ramp."""
    low = min(int(place), len(_RAMP) - 2)
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in _RAMP[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*ends))
