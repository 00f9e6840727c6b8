"""A model that is trained further: how far it drifts from the circuit that it began with."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ontogeny.figures.style import (
    MUTED,
    TOKENS_NOTE,
    drawn,
    member_handles,
    member_styles,
    members_in_order,
    panel_grid,
    styled,
    token_axis,
)
from ontogeny.series import Trajectory


def drift_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """A row a member, task and anchor of members that begin with a circuit (step 0 was trained before).

    `jaccard`: edges that the circuit of this step shares with that of step 0; `held`: raw faithfulness of the circuit
    of step 0 in the model of this step; `back`: of this step's circuit in the model of step 0.
    """
    carried = trajectory.transfers[trajectory.transfers["heads"] == "own"]
    base = carried[(carried["source_step"] == 0) & (carried["source_member"] == carried["member"])]
    columns = ["suite", "member", "scale", "seed", "parameters", "task", "step", "tokens"]
    rows = base[[*columns, "jaccard", "raw", "status"]].rename(columns={"raw": "held"})
    into = carried[(carried["step"] == 0) & (carried["source_member"] == carried["member"])]
    back = into[["member", "task", "source_step", "raw"]].rename(columns={"source_step": "step", "raw": "back"})
    found = rows.merge(back, on=["member", "task", "step"], how="left")
    found = found[found.groupby(["member", "task"])["held"].transform("count") > 0].reset_index(drop=True)
    return styled(found, trajectory.table) if len(found) else found


@drawn
def draw_drift(rows: pd.DataFrame) -> Figure:
    """A panel a task: above the edges shared with the first circuit, below what each circuit is worth in the other."""
    tasks = list(dict.fromkeys(rows["task"]))
    title, legend = "Drift from the circuit of step 0", member_handles(rows)
    figure, panels = panel_grid(tasks, heights=[1.5, 1.9], legends=[legend], note=TOKENS_NOTE, title=title)
    styles = member_styles(rows)
    for task, (above, below) in panels.items():
        here = rows[rows["task"] == task]
        for member in reversed(members_in_order(rows)):
            line = here[here["member"] == member].sort_values("step")
            x, style = line["tokens"].astype(float), styles[member]
            above.plot(x, line["jaccard"], **style)
            below.plot(x, line["held"], **style)
            below.plot(x, line["back"], **(style | {"linestyle": ":", "marker": ""}))
        above.set_ylim(-0.03, 1.03)
        above.set_ylabel("Jaccard of edges")
        above.tick_params(labelbottom=False)
        below.axhline(1.0, color=MUTED, linewidth=0.8)
        below.axhline(0.0, color=MUTED, linewidth=0.8)
        below.set_ylabel("raw faithfulness")
        below.text(
            0.02, 0.1, "line: first circuit here; dots: this circuit in the first model", transform=below.transAxes,
            fontsize=7, color=MUTED,
        )  # fmt: skip
        token_axis(below, here["tokens"].astype(float).tolist())
    return figure
