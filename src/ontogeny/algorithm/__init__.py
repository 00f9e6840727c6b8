"""Whether the algorithm behind a behaviour stays the same (METHODS 7, 8.5)."""

from ontogeny.algorithm.ioi import analyse_algorithm
from ontogeny.algorithm.verification import verify

__all__ = ["analyse_algorithm", "verify"]
