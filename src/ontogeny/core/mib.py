"""Submissions to the circuit track of MIB, the Mechanistic Interpretability Benchmark.

One folder a task and model, ``{task}_{model}`` with hyphens inside the task's name (``arc-easy_llama3``). It holds
either one file of importances, ``importances.json`` or ``importances.pt``, or nine files of circuits with at most 0.1,
0.2, 0.5, 1, 2, 5, 10, 20 and 50 % of the edges. Each is a graph of the EAP-IG library (`ontogeny.core.exchange`). The
rules name no files of the second kind; ours are called by their percentage.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, Literal

import numpy as np

from ontogeny.core.circuit import Circuit, EdgeScores, Ranking, full_circuit
from ontogeny.core.errors import OntogenyError
from ontogeny.core.exchange import read_graph, write_graph

PERCENTAGES: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
Suffix = Literal[".json", ".pt"]


def submission_folder(root: Path, task: str, model: str) -> Path:
    """``root/{task}_{model}``.

    Raises:
        OntogenyError: a name that would not be found again.
    """
    if not task or not model or "/" in task + model:
        raise OntogenyError(f"Task {task!r} and model {model!r} must be names such as 'ioi' and 'gpt2'.")
    return root / f"{task.replace('_', '-')}_{model}"


def write_importances(
    root: Path, task: str, model: str, scores: EdgeScores, d_model: int, suffix: Suffix = ".json"
) -> Path:
    """Write the scores of all edges; gives the file."""
    path = submission_folder(root, task, model) / f"importances{suffix}"
    write_graph(path, full_circuit(scores.graph), scores, d_model)
    return path


def write_circuits(
    root: Path, task: str, model: str, ranking: Ranking, d_model: int, suffix: Suffix = ".json"
) -> tuple[Path, ...]:
    """Write, for each percentage, the largest pruned circuit of this ranking within it; gives the files."""
    folder = submission_folder(root, task, model)
    paths = []
    for percentage in PERCENTAGES:
        limit = math.floor(percentage * ranking.graph.n_edges / 100)
        asked = int(np.searchsorted(ranking.kept, limit, side="right")) - 1
        paths.append(folder / f"{percentage}{suffix}")
        write_graph(paths[-1], ranking.circuit(asked), None, d_model)
    return tuple(paths)


def read_submission(folder: Path) -> tuple[tuple[Circuit, EdgeScores], ...]:
    """One folder: the importances alone, or nine circuits by size.

    Raises:
        OntogenyError: another number of files, or circuits beyond their percentages.
    """
    files = sorted(f for f in folder.glob("*") if f.suffix in {".json", ".pt"})
    if len(files) not in {1, len(PERCENTAGES)}:
        raise OntogenyError(
            f"{folder} holds {len(files)} .json and .pt files; a submission has 1 (importances) or "
            f"{len(PERCENTAGES)} (circuits)."
        )
    graphs = sorted((read_graph(file) for file in files), key=lambda graph: graph[0].n_edges)
    if len(graphs) > 1:
        for (circuit, _), percentage in zip(graphs, PERCENTAGES):
            if 100 * circuit.n_edges > percentage * circuit.graph.n_edges:
                raise OntogenyError(
                    f"{folder}: a circuit of {circuit.n_edges} edges stands where at most {percentage} % of "
                    f"{circuit.graph.n_edges} are allowed."
                )
    return tuple(graphs)
