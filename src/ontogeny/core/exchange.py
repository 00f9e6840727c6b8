"""Circuits and scores as the EAP-IG library writes and reads them (hannamw/EAP-IG, `Graph.to_json`, `Graph.to_pt`).

    .json   {"cfg": {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
             "nodes": {name: {"in_graph": bool}, ...},          every writer, and logits
             "edges": {name: {"score": float, "in_graph": bool}, ...}}
    .pt     {"cfg", "src_nodes": writers' names, "dst_nodes": readers' names, "nodes_in_graph": [writers],
             "edges_scores", "edges_in_graph": [writers, readers]}

Its early versions (until 2024) wrote ``"nodes": {name: bool}``, no d_model, and null as the score of an edge without
one: the dialect `early`. Files of circuits alone leave the scores out. All of these are read; a missing score is 0.

The library's scores have the sign of ours (corrupted minus clean, times the gradient of a loss that is minus the
metric) and a scale that depends on its batches, so that only their order is comparable (METHODS 3.3).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.errors import OntogenyError
from ontogeny.core.graph import GraphSpec

Dialect = Literal["current", "early"]


def to_eap_ig(
    circuit: Circuit, scores: EdgeScores | None, d_model: int, *, dialect: Dialect = "current"
) -> dict[str, Any]:
    """Plain JSON values for `Graph.from_json`; without scores every score is 0, or null in the early dialect."""
    graph, early = circuit.graph, dialect == "early"
    config = _config(graph, d_model)
    if early:
        del config["d_model"]
    names = (*graph.writer_names, "logits")
    inside = [*circuit.nodes.tolist()[:-1], True]

    def score(writer: int, reader: int) -> float | None:
        if scores is None:
            return None if early else 0.0
        return float(scores.values[writer, reader])

    return {
        "cfg": config,
        "nodes": {name: bool(here) if early else {"in_graph": bool(here)} for name, here in zip(names, inside)},
        "edges": {
            graph.edge_name(u, v): {"score": score(u, v), "in_graph": bool(circuit.edges[u, v])}
            for u, v in graph.real_edges.nonzero().tolist()
        },
    }


def from_eap_ig(data: Mapping[str, Any]) -> tuple[Circuit, EdgeScores]:
    """Inverse of `to_eap_ig`, for files of the library too; the method of the scores is ``imported``.

    Raises:
        OntogenyError: a part is missing, or an edge is none of the graph that ``cfg`` describes.
    """
    graph = _described(data, ("cfg", "nodes", "edges"))
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
        if "in_graph" not in entry:
            raise OntogenyError(f"The edge {name!r} does not say whether it is in_graph.")
        edges[place] = bool(entry["in_graph"])
        values[place] = float(entry.get("score") or 0.0)
    return Circuit(graph, edges), EdgeScores(graph, values, "imported")


def to_eap_ig_tensors(circuit: Circuit, scores: EdgeScores | None, d_model: int) -> dict[str, Any]:
    """What `Graph.from_pt` reads; without scores every score is 0."""
    graph = circuit.graph
    values = torch.zeros(graph.n_writers, graph.n_readers) if scores is None else scores.values
    return {
        "cfg": _config(graph, d_model),
        "src_nodes": list(graph.writer_names),
        "dst_nodes": list(graph.reader_names),
        "edges_scores": values.detach().cpu().clone(),
        "edges_in_graph": circuit.edges.clone(),
        "nodes_in_graph": circuit.nodes[:-1].clone(),
    }


def from_eap_ig_tensors(data: Mapping[str, Any]) -> tuple[Circuit, EdgeScores]:
    """Inverse of `to_eap_ig_tensors`; rows and columns are found by their names.

    Raises:
        OntogenyError: a part is missing, or does not fit the graph that ``cfg`` describes.
    """
    graph = _described(data, ("cfg", "src_nodes", "dst_nodes", "edges_in_graph"))
    places = []
    for key, names in (("src_nodes", graph.writer_names), ("dst_nodes", graph.reader_names)):
        if sorted(data[key]) != sorted(names):
            raise OntogenyError(f"{key} of the file are not the {len(names)} of the graph that its cfg describes.")
        place = {name: i for i, name in enumerate(data[key])}
        places.append(torch.tensor([place[name] for name in names]))

    def aligned(key: str) -> Tensor:
        table = torch.as_tensor(data[key])
        if table.shape != graph.real_edges.shape:
            raise OntogenyError(f"{key} has shape {tuple(table.shape)}, expected {tuple(graph.real_edges.shape)}.")
        return table[places[0]][:, places[1]]

    edges = aligned("edges_in_graph").bool()
    if bool((edges & ~graph.real_edges).any()):
        raise OntogenyError("edges_in_graph holds edges that the graph its cfg describes does not have.")
    values = aligned("edges_scores") if "edges_scores" in data else torch.zeros(edges.shape)
    return Circuit(graph, edges), EdgeScores(graph, values.double() * graph.real_edges, "imported")


def write_graph(path: Path, circuit: Circuit, scores: EdgeScores | None, d_model: int) -> None:
    """Write a ``.json`` or ``.pt`` file of the library's current form."""
    _known_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(to_eap_ig_tensors(circuit, scores, d_model), path)
    else:
        path.write_text(json.dumps(to_eap_ig(circuit, scores, d_model)), encoding="utf-8")


def read_graph(path: Path) -> tuple[Circuit, EdgeScores]:
    """Read a ``.json`` or ``.pt`` file of any of the forms above. A ``.pt`` is read without running code of it.

    Raises:
        OntogenyError: the file cannot be read, or is no graph; names the file.
    """
    _known_suffix(path)
    try:
        if path.suffix == ".pt":
            return from_eap_ig_tensors(torch.load(path, map_location="cpu", weights_only=True))
        return from_eap_ig(json.loads(path.read_text(encoding="utf-8")))
    except OntogenyError as error:
        raise OntogenyError(f"{path}: {error}") from None
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise OntogenyError(f"{path} cannot be read as a graph: {error}") from None


def _config(graph: GraphSpec, d_model: int) -> dict[str, Any]:
    graph.require_own_readers("A file of the EAP-IG library")
    return {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": d_model,
    }


def _described(data: object, needed: tuple[str, ...]) -> GraphSpec:
    """The graph that ``cfg`` describes, once all parts are there."""
    missing = [key for key in needed if not isinstance(data, Mapping) or key not in data]
    if missing or not isinstance(data, Mapping):
        raise OntogenyError(f"This is no graph of the EAP-IG library: it lacks {', '.join(missing)}.")
    cfg = data["cfg"]
    try:
        return GraphSpec(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg["parallel_attn_mlp"]))
    except KeyError as error:
        raise OntogenyError(
            f"The graph's cfg lacks {error}; n_layers, n_heads and parallel_attn_mlp are needed."
        ) from None


def _known_suffix(path: Path) -> None:
    if path.suffix not in {".json", ".pt"}:
        raise OntogenyError(f"{path}: graphs are .json or .pt files.")
