"""params.yaml: what is refused, and that files, classes and stages agree."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from ontogeny.core.errors import OntogenyError
from ontogeny.params import CheckpointsParams, Params, load_params, split_member
from ontogeny.stages.check import check_params
from ontogeny.stages.study import MATRIX, STAGES

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "params").glob("*.yaml")), *sorted((ROOT / "examples").glob("*.yaml"))]
WITHOUT_STAGE = {"suite", "execution", "tracking"}


def changed(tmp_path: Path, key: str, value: object) -> Path:
    """The project's params with one value replaced, `key` being dotted."""
    data: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    *sections, last = key.split(".")
    place = data
    for section in sections:
        place = place[section]
    place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_params_file_says_every_setting(path: Path) -> None:
    """A default that is only in the code would be unknown to DVC: every key is written out."""
    params = load_params(path)
    check_params(params)
    given = yaml.safe_load(path.read_text())
    assert missing(given, params.model_dump(mode="json")) == []
    assert params.tracking.study == ("default" if path.parent == ROOT else path.stem)


def missing(given: dict[str, Any], full: dict[str, Any]) -> list[str]:
    return [key for key in full if key not in given or (isinstance(full[key], dict) and missing(given[key], full[key]))]


def test_every_stage_has_a_section_a_class_and_a_module() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert tuple(pipeline) == STAGES
    assert set(Params.model_fields) == set(STAGES) | WITHOUT_STAGE
    for name, stage in pipeline.items():
        annotation = Params.model_fields[name].annotation
        section, *others = get_args(annotation) or (annotation,)  # the ladder's, and what other suites have there
        assert all(isinstance(each, type) and issubclass(each, BaseModel) for each in (section, *others))
        assert section.__name__ == f"{name.capitalize()}Params"
        assert (ROOT / "src" / "ontogeny" / "stages" / f"{name}.py").exists()
        assert f"src/ontogeny/stages/{name}.py" in stage["deps"]
        assert any(param.split(".")[0] == name for param in stage["params"])
        assert stage["cmd"].startswith(f"exec ontogeny stage {name}")
        assert ("matrix" in stage) == (name in MATRIX)


def test_every_dependency_in_the_repository_exists() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    sources = {dep for stage in pipeline.values() for dep in stage["deps"] if dep.startswith("src/")}
    assert sources
    assert [dep for dep in sources if not (ROOT / dep).exists()] == []


def test_settings_that_change_no_number_are_no_dvc_params() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tracked = {param.split(".")[0] for stage in pipeline.values() for param in stage["params"]}
    assert "analyse" in tracked
    assert not tracked & {"execution", "tracking"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("analyse.attribution.stepz", 5, "analyse.attribution.stepz: unknown key. Allowed here: method, steps, rule"),
        ("analyze", {}, "analyze: unknown key. Allowed here: suite, corpus"),
        ("analyse.search.threshold", 1.2, "analyse.search.threshold: Input should be less than or equal to 1"),
        ("analyse.attribution.steps", 0, "analyse.attribution.steps: Input should be greater than or equal to 1"),
        ("analyse.attribution.rule", "up", "analyse.attribution.rule: Input should be 'right', 'left' or 'midpoint'"),
        ("analyse.search.range", "half", "analyse.search.range"),
        ("suite.members", ["giant-s0"], "needs a scale 'giant'"),
        ("suite.members", ["giant"], "not of the form scale-sN"),
        ("suite.members", [], "suite.members"),
        ("checkpoints.scales.tiny.layres", 2, "checkpoints.scales.tiny.layres: unknown key. Allowed here: layers"),
        ("tune.space.threshold", [0.8, 1.2], "tune.space.threshold.1: Input should be less than or equal to 1"),
        ("tune.space.steps", [0], "tune.space.steps.0: Input should be greater than or equal to 1"),
        ("tune.space.method", [], "tune.space.method: Tuple should have at least 1 item"),
        ("tune.space.rule", ["right", "right"], "tune.space: Value error, rule names a value twice"),
        ("tune.checkpoints", ["small-s0"], "tune.checkpoints.0: String should match pattern"),
        ("tune.checkpoints", ["giant-s0@last"], "'giant-s0@last' is of no member of the suite"),
        ("tune.target", 1.0, "tune.target: Input should be less than 1"),
        ("transfer.ablated_sets", 50, "transfer.ablated_sets: Input should be greater than or equal to 100"),
        ("transfer.octaves", 0, "transfer.octaves: Input should be greater than 0"),
        ("execution.device", "gpu", "execution.device"),
        ("execution.n_jobs", 0, "execution.n_jobs"),
    ],
)
def test_bad_params_are_refused_by_name(tmp_path: Path, key: str, value: object, said: str) -> None:
    with pytest.raises(OntogenyError) as caught:
        load_params(changed(tmp_path, key, value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("datasets.tasks", ["ioi", "chess"], "datasets.tasks: there is no task 'chess'; choose from gendered_pronoun"),
        ("datasets.sizes", {"chess": 4}, "datasets.sizes: there is no task 'chess'"),
        ("datasets.corruptions", {"ioi": "zyx"}, "datasets.corruptions.ioi: no corruption 'zyx'; choose from s2_io"),
    ],
)
def test_unknown_tasks_are_refused_by_name(tmp_path: Path, key: str, value: object, said: str) -> None:
    with pytest.raises(OntogenyError) as caught:
        check_params(load_params(changed(tmp_path, key, value)))
    assert said in str(caught.value)


def test_a_file_that_is_no_params_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text, said in [
        ("a: [", "no valid YAML"),
        ("- 1", "sections such as"),
        ("suite: {members: 5}", "suite.members"),
    ]:
        path.write_text(text)
        with pytest.raises(OntogenyError, match=said):
            load_params(path)
    with pytest.raises(OntogenyError, match="does not exist"):
        load_params(tmp_path / "other.yaml")


def test_a_member_is_a_scale_and_a_seed() -> None:
    assert split_member("small-s12") == ("small", 12)
    assert split_member("pythia.70m-s0") == ("pythia.70m", 0)


@pytest.mark.parametrize(("rotary", "heads"), [(0.3, 1), (1.0, 3)])
def test_a_scale_whose_heads_cannot_turn_is_refused_by_name(rotary: float, heads: int) -> None:
    scales = {"odd": {"layers": 1, "heads": heads, "d_model": 16}}
    with pytest.raises(ValidationError, match="scale 'odd'"):
        CheckpointsParams.model_validate({"scales": scales, "rotary": rotary})
    assert CheckpointsParams.model_validate({"scales": {"odd": {**scales["odd"], "heads": 2}}, "rotary": 0.5})
