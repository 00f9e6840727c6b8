"""The names of the numbers: tables, MLflow and figures all say `faithfulness/held_out/raw` for the same thing.

A name is a path; the MLflow UI shows one section of charts for everything before the last slash.

    behaviour/SPLIT/metric, corrupted, difference, accuracy, rank0, mass     with the ends of a bootstrap interval
    circuit/edges, nodes, asked, sustained, edges_share                      of a circuit that was found, else NaN
    circuit/found                                                            1 if the search found one, else 0
    circuit/best_edges                                                       also where the threshold was not met
    circuit/cap, random_p95, cpr, cmd                                        of the search and its curve
    faithfulness/SPLIT/raw, normalised                                       of the chosen circuit
    similarity/KIND/previous, final, previous_ewma                           added by `similarity`
    role/..., algorithm/..., self_repair/..., verification/..., stability/...   see `ontogeny.series.mechanism`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import Split
from ontogeny.core.results import Behaviour, CircuitResult, TaskAnalysis

HEADLINE_SPLITS: Final[tuple[Split, ...]] = ("held_out", "tune", "discover")
"""The split that a figure shows: the first of these that the task has (METHODS 4.3: reports use held_out)."""

_ESTIMATES: Final = ("metric", "corrupted", "difference", "accuracy", "rank0", "mass")

FOUND: Final = "circuit/found"
BEST_EDGES: Final = "circuit/best_edges"
EDGES: Final = "circuit/edges"
NODES: Final = "circuit/nodes"
CAP: Final = "circuit/cap"
CHOSEN: Final = "circuit"
"""The part that a number of the chosen circuit is of."""


class Measure(NamedTuple):
    """A number, its interval where it has one, and why it is NaN where it is."""

    value: float
    low: float
    high: float
    status: str
    """`measured`, or a circuit's status, or `nan`."""
    part: str = ""
    """Head or set of edges that it is of; empty: the whole model."""


def behaviour_quantity(split: str, estimate: str = "metric") -> str:
    """Name of a behaviour: ``behaviour/held_out/metric``."""
    return f"behaviour/{split}/{estimate}"


def faithfulness_quantity(split: str, form: Literal["raw", "normalised"] = "raw") -> str:
    """Name of a faithfulness: ``faithfulness/held_out/raw``."""
    return f"faithfulness/{split}/{form}"


def similarity_quantity(kind: str, other: str) -> str:
    """Name of a similarity: ``similarity/edges/previous``."""
    return f"similarity/{kind}/{other}"


def measures(result: TaskAnalysis, graph: GraphSpec) -> dict[str, Measure]:
    """Every number of one task at one checkpoint, by name. `graph` is the model's: it turns edges into a share."""
    named = dict(_behaviours(result))
    named |= dict(_circuit(result.circuit, graph))
    for split, value in result.circuit.faithfulness.items():
        for form in ("raw", "normalised"):
            named[faithfulness_quantity(split, form)] = _plain(
                getattr(value, form), result.circuit.status, CHOSEN if result.circuit.circuit is not None else ""
            )
    return named


def _behaviours(result: TaskAnalysis) -> Iterator[tuple[str, Measure]]:
    for split in [split for split in HEADLINE_SPLITS if split in result.behaviour]:
        behaviour = result.behaviour[split]
        for name in _ESTIMATES:
            yield behaviour_quantity(split, name), _estimate(behaviour, name)


def _estimate(behaviour: Behaviour, name: str) -> Measure:
    estimate = getattr(behaviour, name)
    status = "measured" if math.isfinite(estimate.value) else "nan"
    return Measure(float(estimate.value), float(estimate.low), float(estimate.high), status)


def _circuit(circuit: CircuitResult, graph: GraphSpec) -> Iterator[tuple[str, Measure]]:
    """A size is a size only where a circuit was found (METHODS 4.5)."""
    found = circuit.status == "found"
    sizes = {
        EDGES: circuit.kept,
        NODES: circuit.nodes,
        "circuit/asked": circuit.asked,
        "circuit/sustained": circuit.sustained,
        "circuit/edges_share": None if circuit.kept is None else circuit.kept / graph.n_edges,
    }
    for name, size in sizes.items():
        yield name, _plain(size if found else None, circuit.status, CHOSEN if found else "")
    yield FOUND, _plain(float(found), circuit.status)
    chosen = circuit.circuit is not None
    yield BEST_EDGES, _plain(circuit.kept if chosen else None, circuit.status, CHOSEN if chosen else "")
    for name, value in {
        CAP: circuit.cap,
        "circuit/random_p95": circuit.random_p95,
        "circuit/cpr": circuit.cpr,
        "circuit/cmd": circuit.cmd,
    }.items():
        yield name, _plain(value, circuit.status)


def _plain(value: float | None, status: str, part: str = "") -> Measure:
    return Measure(math.nan if value is None else float(value), math.nan, math.nan, status, part)
