"""Circuits and scores as the EAP-IG library writes and reads them (hannamw/EAP-IG, `Graph.to_json`).

    {"cfg": {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {name: {"in_graph": bool}, ...},          every writer, and logits
     "edges": {name: {"score": float, "in_graph": bool}, ...}}

The library's scores have the sign of ours (corrupted minus clean, times the gradient of a loss that is minus the
metric) and a scale that depends on its batches, so that only their order is comparable (METHODS 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.errors import OntogenyError
from ontogeny.core.graph import GraphSpec


def to_eap_ig(circuit: Circuit, scores: EdgeScores | None, d_model: int) -> dict[str, Any]:
    """Plain JSON values for `Graph.from_json`; without scores every score is 0."""
    graph = circuit.graph
    values = torch.zeros(graph.n_writers, graph.n_readers) if scores is None else scores.values
    names = (*graph.writer_names, "logits")
    inside = [*circuit.nodes.tolist()[:-1], True]
    return {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": d_model,
        },
        "nodes": {name: {"in_graph": bool(here)} for name, here in zip(names, inside)},
        "edges": {
            graph.edge_name(u, v): {"score": float(values[u, v]), "in_graph": bool(circuit.edges[u, v])}
            for u, v in graph.real_edges.nonzero().tolist()
        },
    }


def from_eap_ig(data: Mapping[str, Any]) -> tuple[Circuit, EdgeScores]:
    """Inverse of `to_eap_ig`, for files of the library too; the method of the scores is ``imported``.

    Raises:
        OntogenyError: a part is missing, or an edge is none of the graph that ``cfg`` describes.
    """
    missing = [key for key in ("cfg", "nodes", "edges") if key not in data]
    if missing:
        raise OntogenyError(f"This is no graph of the EAP-IG library: it lacks {', '.join(missing)}.")
    cfg = data["cfg"]
    try:
        graph = GraphSpec(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg["parallel_attn_mlp"]))
    except KeyError as error:
        raise OntogenyError(
            f"The graph's cfg lacks {error}; n_layers, n_heads and parallel_attn_mlp are needed."
        ) from None
    edges = torch.zeros_like(graph.real_edges)
    values = torch.zeros(edges.shape, dtype=torch.float64)
    writers = {name: i for i, name in enumerate(graph.writer_names)}
    readers = {name: i for i, name in enumerate(graph.reader_names)}
    for name, entry in data["edges"].items():
        writer, _, reader = name.partition("->")
        place = writers.get(writer, -1), readers.get(reader, -1)
        if min(place) < 0 or not bool(graph.real_edges[place]):
            raise OntogenyError(
                f"{name!r} is no edge of a graph with {graph.n_layers} layers of {graph.n_heads} heads "
                f"({'parallel' if graph.parallel else 'sequential'} blocks)."
            )
        edges[place] = bool(entry["in_graph"])
        values[place] = float(entry["score"])
    return Circuit(graph, edges), EdgeScores(graph, values, "imported")
