"""Writing a recommended setting into a params file."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from ontogeny.core.errors import OntogenyError
from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.core.tuning import Recommendation, TunedCheckpoint, setting
from ontogeny.params import load_params
from ontogeny.records.datasets import Checkpoints, write_checkpoints, write_dataset
from ontogeny.records.tuning import read_tuning, write_tuning
from ontogeny.stages.adopt import adopt, with_setting
from ontogeny.stages.studies import find_study, known_studies, run_search
from ontogeny.stages.studies_shown import print_study
from ontogeny.stages.study import Study, open_study
from support.tuning import record

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "params").glob("*.yaml"))]
CHOSEN = setting("eap_ig", "midpoint", 3, "topn", 0.85, 1.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_the_lines_of_the_setting_change(path: Path, tmp_path: Path) -> None:
    """Comments, order and layout of everything else stay, byte for byte."""
    before = path.read_text()
    after = with_setting(before, CHOSEN)
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 3
    assert all("#" not in a or a.partition("#")[2] == b.partition("#")[2] for a, b in changed)
    (tmp_path / "params.yaml").write_text(after)
    params = load_params(tmp_path / "params.yaml")
    assert params.analyse.attribution.model_dump() == {"method": "eap_ig", "steps": 3, "rule": "midpoint"}
    assert (params.analyse.search.selection, params.analyse.search.threshold) == ("topn", 0.85)
    expected = yaml.safe_load(before)
    expected["analyse"]["attribution"] |= {"steps": 3, "rule": "midpoint"}
    expected["analyse"]["search"] |= {"selection": "topn", "threshold": 0.85}
    assert yaml.safe_load(after) == expected


def test_a_method_without_a_path_leaves_steps_and_rule_alone() -> None:
    text = (ROOT / "params.yaml").read_text()
    section = yaml.safe_load(with_setting(text, setting("eap", "", 0, "greedy", 0.8, 1.0)))["analyse"]["attribution"]
    assert section == yaml.safe_load(text)["analyse"]["attribution"] | {"method": "eap"}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with data, and a study over settings of `ioi` made with it."""
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    study = open_study(tmp_path)
    pair = PromptPair("a", "b", (" c",), (" d",), "f", {})
    dataset = TaskDataset("ioi", "logit_diff", "other", 0, "digest", dict.fromkeys(SPLITS, (pair,)))
    write_dataset(study.dataset("ioi"), dataset)
    ref = CheckpointRef("ladder", "small-s0", "small", 0, 8, 64, "data/checkpoints/small-s0/step8", "weights")
    write_checkpoints(study.checkpoints("small-s0"), Checkpoints((ref,)))
    known = dataclasses.replace(
        record(),
        dataset=dataset.digest,
        checkpoints=(TunedCheckpoint("small-s0@8", "small-s0", "small", 8, 64, "weights", 100, "learned", ""),),
        adoptable=Recommendation(CHOSEN, "It is the smallest."),
    )
    write_tuning(study.tuned("ioi"), known)
    return study


def test_the_difference_is_shown_and_written(study: Study) -> None:
    file = study.places.study / "params.yaml"
    before = file.read_text()
    shown = adopt(study, "ioi", file, write=False)
    assert file.read_text() == before
    assert "-    threshold: 0.8\n" in shown
    assert "+    threshold: 0.85\n" in shown
    assert "+  attribution: {method: eap_ig, steps: 3, rule: midpoint}" in shown
    assert adopt(study, "ioi", file) == shown
    assert open_study(study.places.study).params.analyse.attribution.steps == 3
    assert adopt(study, "ioi", file) == ""


def test_unknown_studies_are_refused_by_name(study: Study) -> None:
    assert list(known_studies(study)) == ["ioi"]
    with pytest.raises(OntogenyError, match=r"no study over settings 'chess'; there are: ioi"):
        find_study(study, "chess")


def test_an_unknown_trial_is_refused_by_number(study: Study) -> None:
    known = read_tuning(find_study(study, "ioi"))
    print_study(known, len(known.trials) - 1)
    for number in (-1, len(known.trials)):
        with pytest.raises(
            OntogenyError, match=rf"no trial {number}: they are numbered 0 to {len(known.trials) - 1}\."
        ):
            print_study(known, number)
    with pytest.raises(OntogenyError, match=r"no trial 0: it has none\."):
        print_study(dataclasses.replace(known, trials=()), 0)


def test_a_study_that_recommends_nothing_cannot_be_adopted(study: Study) -> None:
    folder = study.tuned("sva")
    write_tuning(folder, dataclasses.replace(record(), name="sva", adoptable=Recommendation(None, "Nothing fits.")))
    known = dataclasses.replace(record(), adoptable=Recommendation(None, "Nothing fits."), checkpoints=())
    write_tuning(folder, dataclasses.replace(known, task="ioi", dataset=_digest(study)))
    with pytest.raises(OntogenyError, match=r"recommends nothing to adopt: Nothing fits\."):
        adopt(study, "sva", study.places.study / "params.yaml")


def _digest(study: Study) -> str:
    from ontogeny.records.datasets import read_dataset

    return read_dataset(study.dataset("ioi")).digest


def test_a_study_made_with_other_data_is_refused(study: Study) -> None:
    file = study.places.study / "params.yaml"
    before = file.read_text()
    ref = CheckpointRef("ladder", "small-s0", "small", 0, 8, 64, "data/checkpoints/small-s0/step8", "new weights")
    write_checkpoints(study.checkpoints("small-s0"), Checkpoints((ref,)))
    with pytest.raises(OntogenyError, match=r"weights of small-s0@8: weights then, new weights now"):
        adopt(study, "ioi", file)
    write_checkpoints(study.checkpoints("small-s0"), Checkpoints(()))
    with pytest.raises(OntogenyError, match="not there now"):
        adopt(study, "ioi", file)
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "chess"}, "no task 'chess' in this study; choose from ioi"),
        ({"mode": "random"}, "no mode 'random'; choose from grid, multi, single"),
        ({"trials": 0}, "--trials 0: ask for at least 1"),
        ({"workers": 0}, "--jobs 0: ask for at least 1"),
        ({"name": "a/b"}, "'a/b' cannot be a study's name"),
        ({"name": "sva"}, "'sva' cannot be a study's name"),
        ({"checkpoints": ["small-s0@9"]}, "small-s0 has no checkpoint of step 9; there are: 8"),
    ],
)
def test_bad_searches_are_refused_before_any_work(study: Study, options: dict[str, object], said: str) -> None:
    chosen = {"task": "ioi", "mode": "multi"} | options
    task, mode = str(chosen.pop("task")), str(chosen.pop("mode"))
    with pytest.raises(OntogenyError) as caught:
        run_search(study, task, mode, **chosen)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert not (study.places.cache / "studies").exists()
