"""What the doctor says of a healthy machine, and of each thing that can be wrong."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from ontogeny.cli import QUIET
from ontogeny.execution import ray_executor
from ontogeny.execution.locks import held
from ontogeny.execution.places import places_at
from ontogeny.params import RayParams, load_params
from ontogeny.stages import doctor
from ontogeny.stages.doctor import Finding, examine, print_findings
from ontogeny.tracking import Store, health_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's files in a git repository of their own."""
    for name in ("dvc.yaml", "params.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def said(project: Path, profile: str | None = None) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(project, profile, QUIET)}


def setting(project: Path, section: str, key: str, value: object) -> None:
    data = yaml.safe_load((project / "params.yaml").read_text())
    data[section][key] = value
    (project / "params.yaml").write_text(yaml.safe_dump(data))


def everything(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if ".git" not in path.parts}


def test_a_healthy_project_has_no_problem_and_is_left_as_it_was(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(project)
    findings = examine(project, "tiny", QUIET)
    assert {f.what for f in findings if f.state == "problem"} == set()
    assert print_findings(findings)
    shown = capsys.readouterr().out
    assert "Problems: 0." in shown
    for finding in findings:
        assert finding.what in shown
        assert (finding.todo != "") or finding.state == "ok"
    new = {path for path in everything(project) - before if path.parts[0] != ".dvc"}
    assert new == set(), "DVC may keep its own notes; we leave nothing"


def test_a_problem_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_findings([Finding("disk", "problem", "0.1 GiB free", "make room")])
    assert "-> make room" in capsys.readouterr().out


def test_settings_that_cannot_be_run_are_problems(project: Path) -> None:
    (project / ".dvc" / "config").unlink()
    setting(project, "datasets", "tasks", ["chess"])
    found = said(project)
    assert found["params"].state == "problem"
    assert "no task 'chess'" in found["params"].found
    assert (found["DVC"].state, found["DVC"].todo) == ("problem", "`git checkout .dvc`")


def test_a_graphics_card_that_is_not_there_is_a_problem(project: Path) -> None:
    setting(project, "execution", "device", "cuda:99")
    device = said(project)["device"]
    assert device.state == "problem"
    assert "execution.device is cuda:99" in device.found


def test_dvc_that_would_send_usage_data_is_named(project: Path) -> None:
    (project / ".dvc" / "config").write_text("[core]\n    analytics = true\n")
    assert said(project)["DVC"].todo == "`dvc config core.analytics false`"


def test_versions_are_held_against_the_pins(project: Path) -> None:
    text = (project / "constraints.txt").read_text()
    (project / "constraints.txt").write_text(text.replace("filelock==", "filelock==0.0."))
    pins = doctor._pins(project / "constraints.txt", "install")
    assert pins.state == "advice"
    assert pins.found.startswith("1 of ")
    assert "(pinned 0.0." in pins.found


def test_little_room_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for gib, state in ((0.2, "problem"), (3.0, "advice"), (50.0, "ok")):
        free = int(gib * 2**30)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(free, 0, free))
        assert doctor._disk(tmp_path).state == state


def test_a_study_at_work_is_named(tmp_path: Path) -> None:
    places = places_at(tmp_path)
    assert doctor._running(places).state == "ok"
    with held(places.lock("study"), "ontogeny study"):
        at_work = doctor._running(places)
    assert at_work.state == "advice"
    assert "ontogeny study (process " in at_work.found
    assert doctor._running(places).state == "ok"


def test_telemetry_that_the_user_turned_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._telemetry(QUIET).state == "ok"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    assert "MLFLOW_DISABLE_TELEMETRY=false" in doctor._telemetry(QUIET).found


def test_states_of_a_file_store(tmp_path: Path) -> None:
    database = tmp_path / "mlruns" / "mlflow.db"
    assert health_of(Store(f"sqlite:///{database}")).state == "new"
    assert not database.parent.exists(), "looking makes nothing"
    database.parent.mkdir()
    database.write_text("no database")
    assert health_of(Store(f"sqlite:///{database}")).state == "unusable"
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.execute("insert into alembic_version values ('451aebb31d03')")
        connection.commit()
    older = health_of(Store(f"sqlite:///{database}"))
    assert older.state == "older"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.commit()
    assert health_of(Store(f"sqlite:///{database}")).state == "newer"


def test_a_store_address_that_is_none_is_a_problem(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    finding = doctor._store(project, None)
    assert finding.state == "problem"
    assert "does not take as a store any more" in finding.found
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert doctor._store(project, None).state == "advice"


def test_the_executor_is_named_and_a_cluster_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(ROOT / "params" / "tiny.yaml")
    local = doctor._executor(params)
    assert local.state == "ok"
    assert local.found.startswith("local, 1 workers; Ray")
    ray = params.execution.model_copy(update={"executor": "ray", "ray": RayParams(address="127.0.0.1:1")})
    params = params.model_copy(update={"execution": ray})
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert "Ray is not installed" in doctor._executor(params).found
    monkeypatch.setattr(doctor, "_version", lambda _: "9.9")
    assert doctor._executor(params).state == "problem"
    assert "no Ray cluster answers at 127.0.0.1:1" in doctor._executor(params).found
    monkeypatch.setattr(ray_executor, "reach", lambda _: None)
    assert doctor._executor(params) == ("executor", "ok", "Ray 9.9, 127.0.0.1:1", "")
