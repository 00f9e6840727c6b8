"""The report of a study, from a made-up one."""

import re
from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table

from ontogeny.core.errors import OntogenyError
from ontogeny.series.claims import ALL
from ontogeny.stages.report import seeds_of, write_report
from ontogeny.stages.study import Study
from ontogeny.stages.terminal import markdown
from support.finished import finished
from support.synthetic_study import STEPS
from support.synthetic_study import study as synthetic

PICTURES = ("overview", "circuit/ioi-deep-s0", "circuit/ioi-nano-s0", "role_map/deep-s0", "transfer/ioi")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two members, and pictures that only have to be there."""
    made = finished(tmp_path_factory.mktemp("study"), synthetic(("nano", "deep"), STEPS[-4:], ("ioi", "sva")))
    for name in PICTURES:
        path = made.figures / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return made


def test_a_report_has_every_verdict_and_the_tables_behind_it(study: Study, tmp_path: Path) -> None:
    text = write_report(study, tmp_path / "kept").read_text(encoding="utf-8")
    claims = pd.read_parquet(study.trajectories / "claims.parquet")
    for row in claims.itertuples():
        start = f"| {row.claim} | {row.sentence if row.about == ALL else row.about} |"
        (line,) = [line for line in text.splitlines() if line.startswith(start) and str(row.reason) in line]
        assert f"| {row.verdict} |" in line
    assert len(claims) > 20
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "kept" / "tables" / "summary.csv"), pd.read_csv(study.trajectories / "summary.csv")
    )
    kept = {path.stem for path in (tmp_path / "kept" / "tables").iterdir()}
    assert kept == {path.stem for path in study.trajectories.iterdir()}
    assert (tmp_path / "kept" / "params.yaml").read_bytes() == (study.places.study / "params.yaml").read_bytes()
    assert "There is no dvc.lock" in text
    assert "`trajectory.seed` 0" in text


def test_pictures_of_one_member_are_kept_on_demand(study: Study, tmp_path: Path) -> None:
    shown = r"!\[[^]]*\]\(figures/([^)]*)\.png\)"
    without = re.findall(shown, write_report(study, tmp_path).read_text(encoding="utf-8"))
    assert without == ["overview", "transfer/ioi"]
    deep = re.findall(shown, write_report(study, tmp_path, ["deep-s0"]).read_text(encoding="utf-8"))
    assert set(deep) == set(PICTURES) - {"circuit/ioi-nano-s0"}
    for name in deep:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes() == name.encode()
    write_report(study, tmp_path)
    assert not (tmp_path / "figures" / "role_map").exists(), "an earlier report leaves nothing behind"


def test_what_is_no_report_is_not_touched(study: Study, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.csv").write_text("a\n1\n")
    with pytest.raises(OntogenyError, match="holds something else than a report"):
        write_report(study, tmp_path)
    assert (tmp_path / "tables" / "mine.csv").exists()
    with pytest.raises(OntogenyError, match=r"mine\.csv: Not a directory; expected a new or an existing folder"):
        write_report(study, tmp_path / "tables" / "mine.csv")
    with pytest.raises(OntogenyError, match="no member huge-s0; choose from nano-s0, deep-s0"):
        write_report(study, tmp_path / "new", ["huge-s0"])
    assert not (tmp_path / "new").exists()


def test_a_broken_study_leaves_an_earlier_report_as_it_is(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "kept")
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    manifest = study.analyses("deep-s0") / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"schema": ', '"schema": 9'))
    for folder in ("kept", "new"):
        with pytest.raises(OntogenyError, match=r"manifest\.json has schema 9"):
            write_report(study, tmp_path / folder)
    manifest.write_text(whole)
    assert {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_a_study_that_was_not_run_has_no_report(study: Study, tmp_path: Path) -> None:
    empty = Study(study.params, type(study.places)(tmp_path / "empty", tmp_path / "empty"))
    with pytest.raises(OntogenyError, match="has no tables: run `ontogeny study`"):
        write_report(empty, tmp_path / "new")


def test_seeds_are_named_by_their_place() -> None:
    assert dict(seeds_of({"seed": 3, "a": {"b": {"seed": 1, "steps": 5}}, "c": [1]})) == {"seed": 3, "a.b.seed": 1}


def test_a_table_in_markdown_keeps_its_cells_and_loses_its_colours() -> None:
    table = Table("name", title="Effects")
    table.add_column("|e|", justify="right")
    table.add_row("[red]a | b[/red]", "1")
    table.add_section()
    table.add_row("c", "2")
    assert markdown(table) == "| name | \\|e\\| |\n| :-- | --: |\n| a \\| b | 1 |\n| c | 2 |"
