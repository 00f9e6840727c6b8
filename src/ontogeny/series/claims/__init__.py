"""The paper's claims as verdicts: the decision rules of METHODS 0.1, fixed before looking.

A rule is a function from what was measured to a `Claim`; `judge` takes a study's series to all of them.
"""

from ontogeny.series.claims.assembly import Evidence, judge
from ontogeny.series.claims.mechanism import Suppression, algorithm_stays, mlp_dominant, same_roles, suppression_helps
from ontogeny.series.claims.scale import Ending, similar_ends, size_grows
from ontogeny.series.claims.tables import claim_metrics, claims_table, claims_tree
from ontogeny.series.claims.time import (
    dips_below_zero,
    lag,
    learners,
    no_unlearning,
    roles_change_hands,
    roles_follow,
    similar_onsets,
)
from ontogeny.series.claims.values import ALL, VERDICTS, Claim, Text, Verdict, any_of, texts, together

__all__ = [
    "ALL",
    "VERDICTS",
    "Claim",
    "Ending",
    "Evidence",
    "Suppression",
    "Text",
    "Verdict",
    "algorithm_stays",
    "any_of",
    "claim_metrics",
    "claims_table",
    "claims_tree",
    "dips_below_zero",
    "judge",
    "lag",
    "learners",
    "mlp_dominant",
    "no_unlearning",
    "roles_change_hands",
    "roles_follow",
    "same_roles",
    "similar_ends",
    "similar_onsets",
    "size_grows",
    "suppression_helps",
    "texts",
    "together",
]
