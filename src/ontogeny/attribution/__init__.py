"""How edges are scored, one file a method (METHODS 3)."""

from ontogeny.attribution import clean_corrupted, eap, eap_ig, eap_ig_activations, exact
from ontogeny.attribution.base import METHODS, Attribution, score_edges

__all__ = ["METHODS", "Attribution", "clean_corrupted", "eap", "eap_ig", "eap_ig_activations", "exact", "score_edges"]
