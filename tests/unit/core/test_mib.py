"""Submissions to MIB: layout, sizes, round trips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ontogeny.core.circuit import EdgeScores, full_circuit, rank_edges
from ontogeny.core.errors import OntogenyError
from ontogeny.core.exchange import write_graph
from ontogeny.core.graph import GraphSpec
from ontogeny.core.mib import PERCENTAGES, Suffix, read_submission, write_circuits, write_importances


def example() -> EdgeScores:
    graph = GraphSpec(4, 6)
    generator = torch.Generator().manual_seed(0)
    return EdgeScores(graph, torch.randn(graph.real_edges.shape, generator=generator) * graph.real_edges, "x")


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_importances(tmp_path: Path, suffix: Suffix):
    scores = example()
    path = write_importances(tmp_path, "arc_easy", "llama3", scores, 48, suffix)
    assert path == tmp_path / "arc-easy_llama3" / f"importances{suffix}"
    ((circuit, values),) = read_submission(path.parent)
    assert torch.equal(circuit.edges, full_circuit(scores.graph).edges)
    assert torch.equal(values.values.float(), scores.values)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_circuits_are_the_largest_within_their_percentages(tmp_path: Path, suffix: Suffix):
    ranking = rank_edges(example())
    paths = write_circuits(tmp_path, "ioi", "gpt2", ranking, 48, suffix)
    assert len(paths) == len({path.name for path in paths}) == len(PERCENTAGES) == 9
    circuits = [circuit for circuit, _ in read_submission(tmp_path / "ioi_gpt2")]
    for percentage, circuit in zip(PERCENTAGES, circuits):
        fitting = [
            n for n in range(ranking.graph.n_edges + 1) if ranking.kept[n] <= percentage / 100 * ranking.graph.n_edges
        ]
        assert torch.equal(circuit.edges, ranking.circuit(fitting[-1]).edges)
    assert circuits[-1].n_edges > circuits[2].n_edges > 0


def test_circuits_are_graphs_of_the_library(tmp_path: Path):
    path = write_circuits(tmp_path, "ioi", "gpt2", rank_edges(example()), 48)[-1]
    assert set(json.loads(path.read_text())) == {"cfg", "nodes", "edges"}


def test_submissions_that_would_be_refused(tmp_path: Path):
    scores = example()
    paths = write_circuits(tmp_path, "ioi", "gpt2", rank_edges(scores), 48)
    write_graph(paths[-1], full_circuit(scores.graph), None, 48)
    with pytest.raises(OntogenyError, match=r"at most 50 % of"):
        read_submission(tmp_path / "ioi_gpt2")
    paths[0].unlink()
    with pytest.raises(OntogenyError, match="holds 8"):
        read_submission(tmp_path / "ioi_gpt2")
    with pytest.raises(OntogenyError, match="must be names"):
        write_importances(tmp_path, "ioi", "org/gpt2", scores, 48)
