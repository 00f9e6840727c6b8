"""The stages that read records, on a made-up study: also where a member or a checkpoint failed."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.pool import run_jobs
from ontogeny.figures import FIGURES
from ontogeny.records import MemberRecord, read_json, write_member, write_transfer
from ontogeny.records.member import Failure
from ontogeny.stages import figures, trajectory
from ontogeny.stages.study import Study, open_study
from ontogeny.stages.summary import learning_table, main_table, probe_table, read_examination
from support.synthetic_study import member, with_failure
from support.synthetic_transfers import transfers

ROOT = Path(__file__).parents[3]
STEPS = (0, 8, 64, 256, 724, 1722)
LOST = Failure("wide-s0", None, "data/checkpoints/wide-s0", "its worker process died 2 times")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three members: one whole, one with a failed checkpoint, one of which nothing could be trained."""
    data = yaml.safe_load((ROOT / "params" / "tiny.yaml").read_text())
    scale = {"layers": 4, "heads": 4, "d_model": 64}
    data["checkpoints"]["scales"] = dict.fromkeys(("small", "deep", "wide"), scale)
    data["suite"]["members"] = ["small-s0", "deep-s0", "wide-s0"]
    data["tune"]["checkpoints"] = ["small-s0@last"]
    data["figures"] = {"formats": ["png", "svg"], "dpi": 50}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(data))
    study = open_study(tmp_path)
    deep = with_failure(member("deep", STEPS), 1024)
    records = (member("small", STEPS), deep, MemberRecord("ladder", "wide-s0", (), {}, (LOST,)))
    for record in records:
        write_member(study.analyses(record.member), record)
    for carried in transfers(records):
        write_transfer(study.transfers(carried.member), carried)
    study.write_failures("analyse-deep-s0", deep.failures)
    study.write_failures("analyse-small-s0", [])
    return study


def test_tables_metrics_and_pictures_of_what_there_is(study: Study) -> None:
    trajectory.run(study, None)
    assert sorted(path.name for path in study.failures.iterdir()) == ["analyse-small-s0.json"]
    assert {path.name for path in study.metrics.iterdir()} == {"small-s0", "deep-s0", "wide-s0", "claims"}
    assert read_json(study.metrics / "claims" / "C1.json")["verdict"] == read_json(study.claims)["C1"]["verdict"]
    assert read_json(study.metrics / "deep-s0" / "ioi.json")["failed"] == 1
    followed = trajectory.read_trajectory(study.trajectories)
    assert {"small-s0", "deep-s0", "wide-s0"} == set(followed.table["member"])
    assert len(pd.read_csv(study.trajectories / "summary.csv")) == len(followed.summary) == 9

    figures.run(study, None)
    names = {path.stem for path in study.figures.glob("*.png")}
    assert {"behaviour", "circuit_size", "edge_jaccard"} <= names
    assert names == {path.stem for path in study.figures.glob("*.svg")} == {p.stem for p in study.figures.glob("*.csv")}
    assert all(path.stat().st_size > 1000 for path in study.figures.rglob("*.png"))

    records = trajectory.read_records(study)
    exams = {record.member: read_examination(study, record.member) for record in records}
    assert set(exams.values()) == {None}
    assert main_table(followed.summary).row_count == 9
    assert learning_table(records, exams).row_count == 8
    assert probe_table(exams).row_count == 0


def test_the_tables_survive_the_disk(study: Study, tmp_path: Path) -> None:
    from ontogeny.series import follow

    records, carried = trajectory.read_records(study), trajectory.read_transfers(study)
    followed = follow(records, study.params.trajectory, transfers=carried)
    trajectory.write_trajectory(tmp_path / "tables", followed)
    back = trajectory.read_trajectory(tmp_path / "tables")
    assert len(followed.transfers) == 64
    for name in trajectory.table_names():
        pd.testing.assert_frame_equal(getattr(back, name), getattr(followed, name))


def test_the_same_records_give_the_same_bytes(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ontogeny.figures.FIGURES", {"behaviour": FIGURES["behaviour"]})
    written = []
    for _ in range(2):
        for folder in (study.trajectories, study.figures):
            shutil.rmtree(folder, ignore_errors=True)
        trajectory.run(study, None)
        figures.run(study, None)
        files = [path for folder in (study.trajectories, study.figures) for path in sorted(folder.rglob("*.*"))]
        written.append({path.name: path.read_bytes() for path in files})
    assert len(written[0]) == 2 * len(trajectory.table_names()) - 2 + 1 + 3
    assert written[0] == written[1]


def test_only_pictures_whose_rows_or_look_changed_are_drawn_again(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ontogeny.figures.FIGURES", {name: FIGURES[name] for name in ("behaviour", "role_map")})
    asked: list[list[str]] = []

    def watched(jobs, *rest):
        asked.append([job.name for job in jobs])
        return run_jobs(jobs, *rest)

    monkeypatch.setattr("ontogeny.stages.figures.run_jobs", watched)
    trajectory.run(study, None)
    figures.run(study, None)
    assert asked == [["figure behaviour", "figure role_map/small-s0", "figure role_map/deep-s0"]]
    first = {path.name: path.read_bytes() for path in study.figures.rglob("*.png")}
    shutil.rmtree(study.figures)
    figures.run(study, None)
    assert len(asked) == 1, "nothing to draw"
    assert {path.name: path.read_bytes() for path in study.figures.rglob("*.png")} == first

    write_member(study.analyses("small-s0"), member("small", STEPS[:-1]))
    trajectory.run(study, None)
    figures.run(study, None)
    assert asked[1:] == [["figure behaviour", "figure role_map/small-s0"]], "deep-s0's roles are as they were"


def test_only_members_whose_record_changed_are_followed_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def watched(jobs, *rest):
        asked.append([job.name for job in jobs])
        return run_jobs(jobs, *rest)

    def tables() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in study.trajectories.iterdir()}

    monkeypatch.setattr("ontogeny.stages.trajectory.run_jobs", watched)
    trajectory.run(study, None)
    assert asked == [["series of small-s0", "series of deep-s0", "series of wide-s0"]]
    first = tables()
    trajectory.run(study, None)
    assert len(asked) == 1, "nothing changed"
    assert tables() == first

    write_member(study.analyses("small-s0"), member("small", STEPS[:-1]))
    trajectory.run(study, None)
    assert asked[1:] == [["series of small-s0"]]
    changed = tables()
    shutil.rmtree(study.places.cache / "series")
    trajectory.run(study, None)
    assert len(asked[-1]) == 3
    assert tables() == changed, "as if it had been computed from nothing"
    assert changed != first

    rules = study.params.trajectory
    stricter = rules.model_copy(update={"claims": rules.claims.model_copy(update={"alike_octaves": 0.01})})
    params = study.params.model_copy(update={"trajectory": stricter})
    trajectory.run(Study(params, study.places), None)
    assert len(asked) == 3, "rules of claims are not about single members"
    assert tables()["claims.json"] != changed["claims.json"]
    later = study.params.model_copy(update={"trajectory": rules.model_copy(update={"sustain": 3})})
    trajectory.run(Study(later, study.places), None)
    assert len(asked[3]) == 3


def test_a_damaged_part_is_computed_again_and_a_broken_record_is_named(
    study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    trajectory.run(study, None)
    whole = (study.trajectories / "table.parquet").read_bytes()
    victim = sorted((study.places.cache / "series").rglob("*.pickle"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    trajectory.run(study, None)
    assert f"{victim} cannot be read" in caplog.text
    assert (study.trajectories / "table.parquet").read_bytes() == whole
    (study.analyses("deep-s0") / "behaviour.parquet").write_bytes(b"nothing")
    with pytest.raises(OntogenyError, match=r"series of deep-s0: .*deep-s0/behaviour.parquet cannot be read"):
        trajectory.run(study, None)


def test_a_picture_that_cannot_be_drawn_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(FIGURES["behaviour"], rows=lambda *_: pd.DataFrame({"wrong": [1]}))
    monkeypatch.setattr("ontogeny.figures.FIGURES", {"behaviour": broken})
    trajectory.run(study, None)
    with pytest.raises(OntogenyError, match="figure behaviour could not be drawn: KeyError"):
        figures.run(study, None)
