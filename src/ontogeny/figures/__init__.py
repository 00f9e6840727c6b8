"""Pictures. Each is made in two steps: rows (a table that can be tested and saved), then a drawing of exactly these.

`FIGURES` is the registry of a study's pictures; `pictures` draws all of them. `draw_bundle` makes the pictures of one
checkpoint and task. The only importer of matplotlib; no window, no global state, the same bytes in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from ontogeny.figures.algorithm import algorithm_rows, draw_algorithm, draw_repair, repair_rows
from ontogeny.figures.algorithm_circuit import algorithm_circuit_rows, draw_algorithm_circuit
from ontogeny.figures.bundle import draw_bundle, open_bundle, zipped
from ontogeny.figures.claims import claim_rows, draw_claims
from ontogeny.figures.curve import curve_rows, draw_curve, draw_final_curves, final_curve_rows
from ontogeny.figures.diagram import diagram_rows, draw_diagram
from ontogeny.figures.drift import draw_drift, drift_rows
from ontogeny.figures.onset import draw_onsets, study_onset_rows
from ontogeny.figures.overview import draw_overview, overview_rows
from ontogeny.figures.role_graph import draw_role_graph, role_graph_rows
from ontogeny.figures.roles import (
    component_rows,
    draw_components,
    draw_heads,
    draw_role_map,
    head_rows,
    role_map_rows,
)
from ontogeny.figures.size import draw_size_scale, size_scale_rows
from ontogeny.figures.stability import draw_stability, stability_rows
from ontogeny.figures.style import Format, render, styled
from ontogeny.figures.training import (
    behaviour_rows,
    draw_behaviour,
    draw_jaccard,
    draw_size,
    jaccard_rows,
    matched_jaccard_rows,
    size_rows,
    weighted_jaccard_rows,
)
from ontogeny.figures.transfer import (
    ablation_rows,
    alikeness_rows,
    draw_ablations,
    draw_alikeness,
    draw_transfer,
    transfer_rows,
)
from ontogeny.records import MemberRecord
from ontogeny.series import Trajectory

__all__ = [
    "FIGURES",
    "FigureKind",
    "Format",
    "Picture",
    "curve_rows",
    "diagram_rows",
    "draw_bundle",
    "draw_curve",
    "draw_diagram",
    "open_bundle",
    "pictures",
    "render",
    "zipped",
]


@dataclass(frozen=True)
class FigureKind:
    """One entry of the registry."""

    name: str
    """File name without its ending; also the artifact's and the table's name."""
    caption: str
    """One sentence on what is seen."""
    rows: Callable[[Sequence[MemberRecord], Trajectory], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    split_by: tuple[str, ...] = field(default=())
    """One picture for each value of these columns, named NAME/VALUE-VALUE; else one picture."""


@dataclass(frozen=True)
class Picture:
    """A picture and the rows that it shows."""

    name: str
    """File name without its ending."""
    caption: str
    rows: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]
    kind: str = ""
    """Its entry of `FIGURES`; empty: it is none of them."""

    def files(self, formats: Sequence[Format], dpi: int) -> dict[str, bytes]:
        """Content of each file by its ending."""
        figure = self.draw(self.rows)
        return {kind: render(figure, kind, dpi) for kind in formats}


def _final_circuits(records: Sequence[MemberRecord]) -> pd.DataFrame:
    """Edges of the circuits of each member's last checkpoint."""
    last = [max(record.analyses, key=lambda a: a.ref.step) for record in records if record.analyses]
    parts = [diagram_rows(analysis, task) for analysis in last for task in analysis.tasks]
    kept = [rows for rows in parts if len(rows)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


FIGURES: dict[str, FigureKind] = {
    kind.name: kind
    for kind in (
        FigureKind(
            "overview",
            "The study in one picture: behaviour, circuit size, likeness of circuits that are grown to one size.",
            lambda _, trajectory: overview_rows(trajectory),
            draw_overview,
        ),
        FigureKind(
            "behaviour",
            "Behaviour on held-out prompts against training tokens; bands are bootstrap intervals, rings the onsets.",
            lambda _, trajectory: behaviour_rows(trajectory),
            draw_behaviour,
        ),
        FigureKind(
            "circuit_size",
            "Edges kept by the smallest faithful circuit, and what the search said at each checkpoint.",
            lambda _, trajectory: size_rows(trajectory),
            draw_size,
        ),
        FigureKind(
            "edge_jaccard",
            "Edges that consecutive circuits share, at the sizes that were found.",
            lambda _, trajectory: jaccard_rows(trajectory),
            draw_jaccard,
        ),
        FigureKind(
            "edge_jaccard_matched",
            "Edges that consecutive circuits share when both are grown to the same size, at most half of the graph.",
            lambda _, trajectory: matched_jaccard_rows(trajectory),
            draw_jaccard,
        ),
        FigureKind(
            "edge_jaccard_weighted",
            "Likeness of consecutive checkpoints' edge scores, all edges, weighted by |score|.",
            lambda _, trajectory: weighted_jaccard_rows(trajectory),
            draw_jaccard,
        ),
        FigureKind(
            "onsets",
            "When each ability appears and when its heads do: a line a model, the interval of the onset.",
            lambda _, trajectory: study_onset_rows(trajectory),
            draw_onsets,
        ),
        FigureKind(
            "size_against_scale",
            "Mean size of the circuits after the onset against the model's parameters.",
            lambda _, trajectory: size_scale_rows(trajectory),
            draw_size_scale,
        ),
        FigureKind(
            "claims",
            "The paper's claims C1 to C12: verdicts, the statistic that decided, and why.",
            lambda _, trajectory: claim_rows(trajectory),
            draw_claims,
        ),
        FigureKind(
            "faithfulness",
            "Faithfulness by circuit size at the end of training.",
            lambda records, trajectory: styled(final_curve_rows(records), trajectory.table),
            draw_final_curves,
        ),
        FigureKind(
            "circuit",
            "The circuit at the end of training: layers as columns, edges coloured by what they feed.",
            lambda records, _: _final_circuits(records),
            draw_diagram,
            split_by=("task", "member"),
        ),
        FigureKind(
            "components",
            "Head roles: for each model the head that comes first, among the heads of the task's circuits.",
            component_rows,
            draw_components,
        ),
        FigureKind(
            "component_heads",
            "Head roles: the heads of one model that get furthest; the same head has the same colour.",
            head_rows,
            draw_heads,
            split_by=("member",),
        ),
        FigureKind(
            "role_map",
            "Which head holds which role, over training.",
            role_map_rows,
            draw_role_map,
            split_by=("member",),
        ),
        FigureKind(
            "algorithm",
            "IOI: the share of the effect on the logits, on the name movers' queries and on the S-inhibition heads' "
            "values that the heads with the right role carry, beside its null.",
            algorithm_rows,
            draw_algorithm,
        ),
        FigureKind(
            "algorithm_circuit",
            "IOI as roles at the end of training: the heads that were found, and their path effects.",
            algorithm_circuit_rows,
            draw_algorithm_circuit,
            split_by=("member",),
        ),
        FigureKind(
            "stability",
            "Nodes, edges and likeness of circuits over training, beside those of resampled prompts and random ones.",
            stability_rows,
            draw_stability,
        ),
        FigureKind(
            "transfer",
            "Is it the same mechanism? The circuit of one checkpoint in the model of another: raw faithfulness.",
            transfer_rows,
            draw_transfer,
            split_by=("task",),
        ),
        FigureKind(
            "alikeness",
            "Over time against over seeds: what circuits are worth in other models, and the edges that they share.",
            alikeness_rows,
            draw_alikeness,
        ),
        FigureKind(
            "drift",
            "Trained further: edges shared with the circuit of step 0, and what each circuit is worth in the other.",
            drift_rows,
            draw_drift,
        ),
        FigureKind(
            "role_ablation",
            "What the heads of a role are worth to a task, beside as many heads of the same layers.",
            ablation_rows,
            draw_ablations,
        ),
        FigureKind(
            "role_graph",
            "Circuits as roles across scales: the share of |score| that runs from role to role.",
            role_graph_rows,
            draw_role_graph,
            split_by=("task",),
        ),
        FigureKind(
            "self_repair",
            "What the other heads take over when the leading heads of a role are ablated (IOI).",
            repair_rows,
            draw_repair,
        ),
    )
}


def pictures(records: Sequence[MemberRecord], trajectory: Trajectory) -> Iterator[Picture]:
    """Every picture of a study; one without rows (nothing was found yet) is left out."""
    for kind in FIGURES.values():
        rows = kind.rows(records, trajectory)
        if not len(rows):
            continue
        if not kind.split_by:
            yield Picture(kind.name, kind.caption, rows, kind.draw, kind.name)
            continue
        for values, part in rows.groupby(list(kind.split_by), sort=False):
            name = f"{kind.name}/{'-'.join(str(value) for value in values)}"
            yield Picture(name, kind.caption, part.reset_index(drop=True), kind.draw, kind.name)
