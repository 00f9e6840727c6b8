"""What happens over training and across scale, as tidy tables.

`follow` turns the records of a study into a `Trajectory`: one long table of every number, when each ability appears,
and one row a model and task. Nothing here reads a disk, a tracker or a clock.
"""

from ontogeny.series.claims import Claim, Verdict, claim_metrics, claims_tree
from ontogeny.series.emergence import Emergence, emergence_table, emergences
from ontogeny.series.external import External, external_table
from ontogeny.series.fluctuation import Fluctuation, change_table, fluctuation_table, fluctuations
from ontogeny.series.mechanism import (
    METRICS,
    algorithm_quantity,
    circuit_heads,
    leading_head,
    mechanism_measures,
    role_quantity,
)
from ontogeny.series.nulls import RandomCircuits
from ontogeny.series.onset import Onset, onset
from ontogeny.series.palette import scale_colours
from ontogeny.series.persistence import Survival, role_survival, spells, survival
from ontogeny.series.quantities import (
    HEADLINE_SPLITS,
    Measure,
    behaviour_quantity,
    faithfulness_quantity,
    measures,
    similarity_quantity,
)
from ontogeny.series.role_graph import membership, role_graph_likeness, role_graph_table
from ontogeny.series.roles import TASK_OF, handovers, role_emergences, role_onsets, role_table, role_turnover
from ontogeny.series.scale import onset_differences, onset_trend
from ontogeny.series.similarity import ewma, similarity
from ontogeny.series.size import size_correlations, size_points
from ontogeny.series.stability import stability_table
from ontogeny.series.summary import dvc_metrics, summary
from ontogeny.series.table import COLUMNS, final_step, headline, tidy
from ontogeny.series.trajectory import Trajectory, follow, join
from ontogeny.series.transfer import COMPARED, ablation_table, alikeness, sets_beaten, transfer_measures, transfer_table

__all__ = [
    "COLUMNS",
    "COMPARED",
    "HEADLINE_SPLITS",
    "METRICS",
    "TASK_OF",
    "Claim",
    "Emergence",
    "External",
    "Fluctuation",
    "Measure",
    "Onset",
    "RandomCircuits",
    "Survival",
    "Trajectory",
    "Verdict",
    "ablation_table",
    "algorithm_quantity",
    "alikeness",
    "behaviour_quantity",
    "change_table",
    "circuit_heads",
    "claim_metrics",
    "claims_tree",
    "dvc_metrics",
    "emergence_table",
    "emergences",
    "ewma",
    "external_table",
    "faithfulness_quantity",
    "final_step",
    "fluctuation_table",
    "fluctuations",
    "follow",
    "handovers",
    "headline",
    "join",
    "leading_head",
    "measures",
    "mechanism_measures",
    "membership",
    "onset",
    "onset_differences",
    "onset_trend",
    "role_emergences",
    "role_graph_likeness",
    "role_graph_table",
    "role_onsets",
    "role_quantity",
    "role_survival",
    "role_table",
    "role_turnover",
    "scale_colours",
    "sets_beaten",
    "similarity",
    "similarity_quantity",
    "size_correlations",
    "size_points",
    "spells",
    "stability_table",
    "summary",
    "survival",
    "tidy",
    "transfer_measures",
    "transfer_table",
]
