"""Two studies side by side: numbers against the records themselves, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.core.circuit import Circuit
from ontogeny.core.errors import OntogenyError
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import TaskAnalysis
from ontogeny.figures.comparison import comparison_rows, draw_comparison
from ontogeny.figures.style import render
from ontogeny.records import MemberRecord
from ontogeny.series.comparison import COMPARISON_COLUMNS, Comparison
from ontogeny.stages.compare import check_picture, compare_studies, write_csv, write_picture
from ontogeny.stages.study import open_study
from support.finished import finished
from support.synthetic_study import member

STEPS = (0, 512, 1024, 1722)
TASKS = ("ioi", "sva")


def changed(record: MemberRecord, step: int, task: str, **fields: object) -> MemberRecord:
    """`record` with another result at one place."""

    def result(old: TaskAnalysis) -> TaskAnalysis:
        return replace(old, circuit=replace(old.circuit, **fields))  # type: ignore[arg-type]

    analyses = tuple(
        replace(a, tasks={**a.tasks, task: result(a.tasks[task])}) if a.ref.step == step else a for a in record.analyses
    )
    return replace(record, analyses=analyses)


def half(circuit: Circuit) -> Circuit:
    """Every second edge of a circuit."""
    edges = circuit.edges.clone().flatten()
    there = edges.nonzero().flatten()
    edges[there[1::2]] = False
    return Circuit(circuit.graph, edges.view_as(circuit.edges))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A: two models. B: another threshold, one model of A's with half a circuit at one place, one model more."""
    root = tmp_path_factory.mktemp("studies")
    deep = member("deep", STEPS, TASKS)
    circuit = deep.analyses[-1].tasks["sva"].circuit.circuit
    assert circuit is not None
    other = changed(deep, STEPS[-1], "sva", circuit=half(circuit), kept=half(circuit).n_edges)
    finished(root / "a", [deep, member("small", STEPS, TASKS)])
    finished(root / "b", [other, member("wide", STEPS[:2], TASKS)], threshold=0.9)
    return root / "a", root / "b"


@pytest.fixture(scope="module")
def found(places: tuple[Path, Path]) -> Comparison:
    return compare_studies(open_study(places[0]), [".", str(places[1])])


def row(found: Comparison, step: int, task: str) -> pd.Series:
    table = found.table
    (place,) = table.index[(table["step"] == step) & (table["task"] == task)]
    return table.loc[place]


def test_only_what_both_have_is_compared(found: Comparison) -> None:
    assert list(found.table.columns) == list(COMPARISON_COLUMNS)
    assert set(found.table["member"]) == {"deep-s0"}
    assert len(found.table) == len(STEPS) * len(TASKS)
    assert found.only_a == ("small-s0 ioi", "small-s0 sva")
    assert found.only_b == ("wide-s0 ioi", "wide-s0 sva")


def test_half_a_circuit_has_a_jaccard_of_its_share_and_equal_ones_of_one(found: Comparison) -> None:
    changed_place, same = row(found, STEPS[-1], "sva"), row(found, STEPS[-1], "ioi")
    assert changed_place["edges_b"] == math.ceil(changed_place["edges_a"] / 2)
    assert changed_place["jaccard_edges"] == pytest.approx(changed_place["edges_b"] / changed_place["edges_a"])
    assert 0 < changed_place["jaccard_edges"] < 0.6
    assert same["jaccard_edges"] == same["jaccard_nodes"] == 1.0
    # The scores are the same everywhere: matched sizes and weights must say so at the changed place too.
    assert changed_place["jaccard_edges_matched"] == 1.0
    assert changed_place["likeness_weighted"] == pytest.approx(1.0)


def test_without_a_circuit_it_says_why(found: Comparison) -> None:
    start = row(found, 0, "ioi")
    assert math.isnan(start["jaccard_edges"])
    assert start["reason"] == "no circuit, A: not_learned, B: not_learned"
    assert row(found, STEPS[-1], "ioi")["reason"] == ""


def test_settings_that_differ_are_named(found: Comparison) -> None:
    settings = found.settings.set_index("setting")
    assert tuple(settings.loc["analyse.search.threshold"]) == ("0.8", "0.9")
    assert "suite.members" in settings.index
    assert not [name for name in settings.index if name.startswith(("tracking", "execution"))]


def test_other_layers_or_heads_are_not_compared_edge_by_edge(tmp_path: Path, places: tuple[Path, Path]) -> None:
    base = member("deep", STEPS, TASKS)
    small = member("small", STEPS, TASKS)
    assert base.analyses[0].model.graph != small.analyses[0].model.graph
    renamed = replace(
        small,
        member="deep-s0",
        analyses=tuple(replace(a, ref=replace(a.ref, member="deep-s0")) for a in small.analyses),
    )
    finished(tmp_path, [renamed])
    other = compare_studies(open_study(places[0]), [".", str(tmp_path)])
    assert set(other.table["reason"]) == {"the models have other layers or heads"}
    assert other.table["likeness_weighted"].isna().all()
    assert isinstance(base.analyses[0].model.graph, GraphSpec)


def test_csv_and_picture(found: Comparison, tmp_path: Path) -> None:
    write_csv(found, tmp_path / "all.csv")
    back = pd.read_csv(tmp_path / "all.csv")
    assert list(back["jaccard_edges"].dropna()) == list(found.table["jaccard_edges"].dropna())
    write_picture(found, tmp_path / "both.png", 80)
    write_picture(found, tmp_path / "both.svg", 80)
    assert (tmp_path / "both.png").stat().st_size > 10_000
    rows = comparison_rows(found)
    assert render(draw_comparison(rows), "svg") == (tmp_path / "both.svg").read_bytes()
    with pytest.raises(OntogenyError, match=r"ends in \.png or \.svg"):
        check_picture(tmp_path / "both.gif")


def test_a_comparison_without_any_circuit_is_drawn_too(places: tuple[Path, Path]) -> None:
    plain = compare_studies(open_study(places[0]), [".", "."])
    early = replace(plain, table=plain.table[plain.table["step"] == 0])
    assert early.table["jaccard_edges"].isna().all()
    assert b"no circuits to compare" in render(draw_comparison(comparison_rows(early)), "svg")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((".", "never-heard-of"), "'never-heard-of' is neither a folder nor a profile that was run nor a git revision"),
        (("{empty}", "."), "{empty} is no study: expected a folder with params.yaml and data/"),
        ((".", "{b}/data/analyses"), "is no study"),
        (("{none}", "."), "holds no finished study"),
        (("{far}", "."), "have no checkpoint in common: the first has wide-s0, the second deep-s0, small-s0"),
    ],
)
def test_what_is_no_study_is_refused(
    places: tuple[Path, Path], tmp_path: Path, names: tuple[str, str], said: str
) -> None:
    (tmp_path / "none" / "data").mkdir(parents=True)
    (tmp_path / "none" / "params.yaml").write_text((places[0] / "params.yaml").read_text())
    (tmp_path / "empty").mkdir()
    finished(tmp_path / "far", [member("wide", STEPS[:2], TASKS)])
    known = {"b": places[1], **{name: tmp_path / name for name in ("empty", "none", "far")}}
    if not (places[0] / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=places[0], check=True)
        (places[0] / ".dvc").mkdir()
    with pytest.raises(OntogenyError) as refusal:
        compare_studies(open_study(places[0]), [name.format(**known) for name in names])
    assert said.format(**known) in str(refusal.value)


def test_the_command_prints_tables_and_takes_a_data_folder_for_its_study(places: tuple[Path, Path]) -> None:
    a, b = places
    command = [sys.executable, "-m", "ontogeny", "compare", str(b / "data"), str(b)]
    done = subprocess.run(command, cwd=a, capture_output=True, text=True, check=True)
    assert "The settings are the same." in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "deep-s0" in line and " sva " in line and "1,722" in line]
    assert "1.00" in line
