"""Circuits and heads taken elsewhere: to other checkpoints, to other seeds, and out of the model (METHODS 8.2)."""

from ontogeny.transfer.ablation import LEAST_SETS, ablate_role, ablate_roles, matched_sets, without_heads
from ontogeny.transfer.carrying import Carried, CarriedCircuit, carry, carry_seeds
from ontogeny.transfer.matching import Matching, match_heads, rename_heads, role_vectors

__all__ = [
    "LEAST_SETS",
    "Carried",
    "CarriedCircuit",
    "Matching",
    "ablate_role",
    "ablate_roles",
    "carry",
    "carry_seeds",
    "match_heads",
    "matched_sets",
    "rename_heads",
    "role_vectors",
    "without_heads",
]
