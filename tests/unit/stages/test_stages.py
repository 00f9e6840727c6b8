"""Studies: their folders, failed jobs, leftovers, profiles."""

import json
import shutil
from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.places import places_at
from ontogeny.records import Failure
from ontogeny.stages.reproduce import (
    Timing,
    prepare_profile,
    profile_file,
    profiles,
    remove_stale,
    timings,
)
from ontogeny.stages.study import Study, open_study, run_stage

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    shutil.copy(ROOT / "params" / "tiny.yaml", tmp_path / "params.yaml")
    return open_study(tmp_path)


def test_failed_stages_are_forgotten_and_the_others_not(study: Study) -> None:
    failure = Failure("nano-s0", 4, "data/checkpoints/nano-s0/step4", "cut short")
    study.write_failures("analyse-nano-s0", [failure])
    study.write_failures("analyse-micro-s0", [])
    assert study.read_failures() == [failure]
    study.forget_failed()
    assert [path.name for path in study.failures.iterdir()] == ["analyse-micro-s0.json"]
    assert study.read_failures() == []


def test_what_the_params_no_longer_name_is_removed(study: Study) -> None:
    for name in ("analyses/nano-s0/x", "analyses/giant-s0/x", "tasks/ioi/x", "tasks/chess/x"):
        path = study.places.data / name
        path.parent.mkdir(parents=True)
        path.write_text("1")
    study.write_failures("analyse-giant-s0", [])
    study.write_failures("checkpoints", [])
    remove_stale(study)
    left = {str(path.relative_to(study.places.data)) for path in study.places.data.rglob("*") if path.is_file()}
    assert left == {"analyses/nano-s0/x", "tasks/ioi/x", "failures/checkpoints.json"}


def test_a_profile_is_a_folder_of_its_own_with_links_to_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, project / name)
    places = places_at(project).profile("tiny")
    for _ in range(2):
        prepare_profile(places, ROOT / "params" / "tiny.yaml")
    assert (places.study / "dvc.yaml").read_text() == (project / "dvc.yaml").read_text()
    assert (places.study / "src").resolve() == project / "src"
    assert (places.study / "params.yaml").read_bytes() == (ROOT / "params" / "tiny.yaml").read_bytes()
    config = (places.study / ".dvc" / "config").read_text()
    assert "no_scm = true" in config
    assert str(project / ".dvc" / "cache") in config
    assert {path.name for path in project.iterdir()} == {"dvc.yaml", ".dvcignore", "src", ".cache"}
    assert open_study(places.study).params.suite.members == ("nano-s0", "micro-s0")


def test_profiles_are_the_files_of_params() -> None:
    assert {"tiny"} <= set(profiles(ROOT))
    assert profile_file(ROOT, "tiny") == ROOT / "params" / "tiny.yaml"
    with pytest.raises(OntogenyError, match="choose from"):
        profile_file(ROOT, "gigantic")


def test_a_stage_is_timed_outside_the_outputs(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(study: Study, item: str | None) -> None:
        asked.append((study.places.study, item))

    monkeypatch.setattr("ontogeny.stages.datasets.run", fake)
    run_stage("datasets", "ioi", study.places.study)
    assert asked == [(study.places.study, "ioi")]
    (timing,) = timings(study)
    assert isinstance(timing, Timing)
    assert (timing.stage, timing.item) == ("datasets", "ioi")
    assert timing.seconds >= 0
    assert not study.places.data.exists()


def test_every_line_of_the_timings_is_json(study: Study) -> None:
    assert timings(study) == []
    study.timings.parent.mkdir(parents=True)
    study.timings.write_text(json.dumps({"stage": "corpus", "item": None, "seconds": 1.5}) + "\n")
    assert timings(study) == [Timing("corpus", None, 1.5)]
