"""How edges and nodes are scored, one file a method (METHODS 3)."""

from ontogeny.attribution import ceap, clean_corrupted, eap, eap_ig, eap_ig_activations, exact, nap, nap_ig
from ontogeny.attribution.base import METHODS, Attribution, score_edges, score_edges_by_example, score_edges_resampled
from ontogeny.attribution.nodes import NODE_METHODS, NodeAttribution, NodeSettings, score_nodes, score_nodes_by_example

__all__ = [
    "METHODS",
    "NODE_METHODS",
    "Attribution",
    "NodeAttribution",
    "NodeSettings",
    "ceap",
    "clean_corrupted",
    "eap",
    "eap_ig",
    "eap_ig_activations",
    "exact",
    "nap",
    "nap_ig",
    "score_edges",
    "score_edges_by_example",
    "score_edges_resampled",
    "score_nodes",
    "score_nodes_by_example",
]
