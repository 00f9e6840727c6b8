"""What a study would take, and what is said when it does not fit."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ontogeny.core.errors import OntogenyError
from ontogeny.core.schedule import ANALYSES
from ontogeny.execution.places import places_at
from ontogeny.models.checkpoints import Forecast
from ontogeny.models.neox import neox_config
from ontogeny.params import ScaleParams, load_params
from ontogeny.stages import plan as plan_stage
from ontogeny.stages.plan import Machine, check_fits, machine_of, misfits, plan_study, side_by_side
from ontogeny.stages.study import Study

ROOT = Path(__file__).parents[3]


def study_in(folder: Path, file: str = "params/tiny.yaml", **changes: Mapping[str, Any]) -> Study:
    data = yaml.safe_load((ROOT / file).read_text())
    for section, values in changes.items():
        data[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(data))
    return Study(load_params(folder / "params.yaml"), places_at(folder))


def test_the_plan_of_a_ladder(tmp_path: Path) -> None:
    study = study_in(tmp_path, execution={"n_jobs": 2})
    plan = plan_study(study)
    nano, micro = plan.members
    assert [m.member for m in plan.members] == list(study.params.suite.members)
    assert (nano.checkpoints, micro.checkpoints) == (5, 5), "steps 0, 4, 8, 16, 24"
    assert (nano.outline.architecture.graph.n_edges, micro.outline.architecture.graph.n_edges) == (11, 42)
    assert nano.missing == micro.missing == 0
    assert plan.workers == 2
    assert plan.memory.host == 2 * micro.memory.host
    assert plan.disk == {
        tmp_path: 3 * (nano.stored + micro.stored) + 3 * (nano.largest + micro.largest) + nano.records + micro.records
    }
    assert nano.effort.passes > 0
    assert nano.tuning.passes > 0
    assert misfits(study, plan, machine_of(study, plan)) == []
    check_fits(study)


def roomy(plan: plan_stage.Plan, **changes: Any) -> Machine:
    return Machine(10**15, None, dict.fromkeys(plan.disk, 10**15))._replace(**changes)


def test_too_little_memory_names_the_number_of_workers_that_fit(tmp_path: Path) -> None:
    study = study_in(tmp_path, execution={"n_jobs": 4})
    plan = plan_study(study)
    one = max(m.memory.host for m in plan.members)
    assert misfits(study, plan, roomy(plan)) == []
    [found] = misfits(study, plan, roomy(plan, memory=3 * one))
    assert found.todo == "set execution.n_jobs: 3"
    [found] = misfits(study, plan, roomy(plan, memory=one - 1))
    assert found.todo.startswith("take micro-s0 out of suite.members, lower datasets.sizes")


def test_on_a_cluster_memory_is_the_nodes_own(tmp_path: Path) -> None:
    study = study_in(tmp_path, execution={"executor": "ray"})
    plan = plan_study(study)
    assert misfits(study, plan, roomy(plan, memory=0)) == []


def test_workers_that_share_a_gpu_share_its_memory(tmp_path: Path) -> None:
    study = study_in(tmp_path, execution={"n_jobs": 3, "device": "cuda:0"})
    plan = plan_study(study)
    assert plan.memory.device > 0
    assert misfits(study, plan, roomy(plan, device_memory=3 * plan.memory.device)) == []
    [found] = misfits(study, plan, roomy(plan, device_memory=2 * plan.memory.device))
    assert found.todo == "set execution.n_jobs: 1"
    [found] = misfits(study, plan, roomy(plan, device_memory=plan.memory.device - 1))
    assert "out of suite.members" in found.todo


def test_too_little_disk_for_a_ladder_names_its_schedule(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    plan = plan_study(study)
    [found] = misfits(study, plan, roomy(plan, disk={tmp_path: plan.disk[tmp_path] - 1}))
    assert found.todo.startswith("lower checkpoints.per_octave")


@dataclass(frozen=True)
class Shop:
    """A hub whose checkpoints are 2 GB each, one of which is here."""

    def forecast(self, _: str) -> tuple[Forecast, ...]:
        analyses = [ANALYSES[:1], ANALYSES[:2], ANALYSES]
        return tuple(Forecast(s, 10 * s, analyses[s], 2 * 10**9, 0 if s == 0 else 2 * 10**9) for s in range(3))

    def config(self, _: str) -> dict[str, Any]:
        return dict(neox_config(ScaleParams(layers=2, heads=2, d_model=16), 128, 100, 0.25).to_json())


def hub_study(folder: Path, monkeypatch: pytest.MonkeyPatch, disk_gb: float | None) -> Study:
    monkeypatch.setattr(Study, "source", Shop())
    monkeypatch.setattr(plan_stage, "hub_folder", lambda: folder / "hub")
    members = {"members": ["160m-s0"]}
    return study_in(folder, "params/pythia-160m-ioi.yaml", suite=members, execution={"disk_gb": disk_gb})


def test_the_plan_of_a_hub_suite_downloads_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = hub_study(tmp_path, monkeypatch, None)
    plan = plan_study(study)
    [member] = plan.members
    assert (member.checkpoints, member.stored, member.missing) == (3, 6 * 10**9, 4 * 10**9)
    assert plan.disk == {tmp_path: member.records, tmp_path / "hub": 4 * 10**9}
    less = plan_study(hub_study(tmp_path, monkeypatch, 1.0))
    assert less.disk[tmp_path / "hub"] == 3 * 10**9, "the budget and one checkpoint"


def test_too_little_disk_for_downloads_names_the_budget_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folders are on one file system: what the records take is not there for downloads."""
    big = 10 * 2 * 10**9
    study = hub_study(tmp_path, monkeypatch, None)
    plan = plan_study(study)
    plan = plan_stage.Plan(plan.members, plan.workers, plan.memory, {tmp_path: 10**9, tmp_path / "hub": big})
    [found] = misfits(study, plan, roomy(plan, disk=dict.fromkeys(plan.disk, 9 * 10**9)))
    assert found.what.startswith("disk at ")
    assert found.todo == "set execution.disk_gb: 6.0, or less"
    [found] = misfits(study, plan, roomy(plan, disk=dict.fromkeys(plan.disk, 3 * 10**9)))
    assert found.todo.startswith("set HF_HOME to a larger disk")


def test_a_study_that_cannot_fit_is_refused_with_the_param_to_change(tmp_path: Path) -> None:
    giant = {"layers": 100, "heads": 64, "d_model": 32768}
    scales = {"nano": {"layers": 1, "heads": 2, "d_model": 16}, "micro": giant}
    study = study_in(tmp_path, checkpoints={"scales": scales})
    with pytest.raises(
        OntogenyError, match=r"does not fit .*--anyway(.|\n)*memory: .* GB available: take micro-s0 out"
    ):
        check_fits(study)


def test_jobs_end_when_the_last_worker_is_done() -> None:
    assert side_by_side([5, 1, 1, 1, 2], 2) == 5
    assert side_by_side([5, 1, 1, 1, 2], 1) == 10
    assert side_by_side([3, 3, 3], 2) == 6


def test_times_are_those_of_the_measured_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says a millisecond each time, sums can be followed; members of one shape are measured once."""
    from ontogeny.planning import calibration

    measured: list[object] = []
    unit = calibration.Calibration(forward=1e-3, circuit=1e-4, operation=0.0, load=0.5)
    monkeypatch.setattr(calibration, "calibrate", lambda _, outline, *__: measured.append(outline) or unit)
    monkeypatch.setattr(calibration, "seconds_per_step", lambda scale, *_: 0.01 * scale.layers)
    study = study_in(tmp_path, suite={"members": ["nano-s0", "nano-s1"]}, tune={"checkpoints": ["nano-s0@last"]})
    plan = plan_study(study)
    times = plan_stage.times_of(study, plan)
    one = plan.members[0].effort
    assert len(measured) == 1
    assert times.training == pytest.approx(2 * 24 * 0.01)
    assert times.analyses == pytest.approx(2 * (one.forward * 1e-3 + one.circuits * 1e-4 + 5 * 0.5))
    assert times.tuning == pytest.approx(unit.seconds(plan.members[0].tuning))
    loads = 2 * study.params.transfer.anchors * 0.5
    assert times.transfer == pytest.approx(2 * unit.seconds(plan.members[0].transfer) + loads)
    assert plan.members[0].transfer.circuits > 0
    assert times.publishing == pytest.approx(0.2 * 2 * 5 * len(study.params.datasets.tasks))


def test_everything_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "params" / "tiny.yaml", tmp_path / "params.yaml")
    study = Study(load_params(tmp_path / "params.yaml"), places_at(tmp_path))
    assert plan_stage.print_plan(study)
    said = capsys.readouterr().out
    for word in (
        "nano-s0",
        "micro-s0",
        "checkpoints   10",
        "download      0.00 GB",
        "peak disk",
        "peak memory",
        "time",
    ):
        assert word in said
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
