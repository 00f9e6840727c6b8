"""One picture of a study: a column a task; behaviour, circuit size and likeness of circuits under each other."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ontogeny.figures.style import (
    MANY,
    METRIC_LABELS,
    TOKENS_NOTE,
    drawn,
    mark_handle,
    member_handles,
    member_styles,
    panel_grid,
    token_axis,
)
from ontogeny.figures.training import (
    behaviour_panel,
    behaviour_rows,
    jaccard_panel,
    matched_jaccard_rows,
    single_values,
    size_label,
    size_panel,
    size_rows,
)
from ontogeny.series import Trajectory


def overview_rows(trajectory: Trajectory) -> pd.DataFrame:
    """The rows of the three pictures, told apart by `panel`: behaviour, size, jaccard."""
    parts = {
        "behaviour": behaviour_rows(trajectory),
        "size": size_rows(trajectory),
        "jaccard": matched_jaccard_rows(trajectory),
    }
    return pd.concat([rows.assign(panel=name) for name, rows in parts.items() if len(rows)], ignore_index=True)


@drawn
def draw_overview(rows: pd.DataFrame) -> Figure:
    """Four tasks fit in a row."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    legend = [*member_handles(rows), mark_handle("onset", "o", size=9)]
    grown = rows[rows["panel"] == "jaccard"]
    if len(grown):
        legend.append(single_values(f"likeness of consecutive circuits, {size_label(grown)}"))
    if (rows["status"] == "threshold_unmet").any():
        legend.append(mark_handle("best circuit, threshold not met", "v"))
    columns = min(4, len(tasks))
    heights = [1.65, 1.35, 1.35] if len(styles) <= MANY else [2.0, 2.0, 2.4]
    figure, panels = panel_grid(
        tasks, heights=heights, columns=columns, width=3.4 * columns, legends=[legend], note=TOKENS_NOTE
    )
    labels = ("edges kept", "Jaccard to previous")
    for task, (top, middle, low) in panels.items():
        here = rows[rows["task"] == task]
        behaviour_panel(top, here[here["panel"] == "behaviour"].assign(onset=_flags), styles)
        size_panel(middle, here[here["panel"] == "size"], styles)
        jaccard_panel(low, here[here["panel"] == "jaccard"], styles)
        token_axis(low, here["tokens"].astype(float).tolist())
        for axes, label in zip((top, middle, low), (METRIC_LABELS.get(task, "metric"), *labels)):
            axes.set_ylabel(label)
    return figure


def _flags(rows: pd.DataFrame) -> pd.Series:
    """`onset` as truth values again: joining tables that lack the column made it an object."""
    return rows["onset"].fillna(False).astype(bool)
