"""Search spaces, checkpoints by name, and studies that were made with something else."""

import dataclasses
from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.core.tuning import BASELINES, setting
from ontogeny.models.checkpoints import StudyFolders
from ontogeny.params import SpaceParams
from ontogeny.tuning.conclude import learned
from ontogeny.tuning.study import (
    TuningSpec,
    baselines,
    check_facts,
    choose_ref,
    contains,
    grid,
    grid_jobs,
    score_settings,
)
from support.tuning import SPACE, place, run_here


def test_a_grid_holds_every_distinct_setting_once() -> None:
    """By hand: eap has 2 thresholds x 2 shares; eap_ig twice as many steps."""
    every = grid(SPACE)
    assert len(every) == len(set(every)) == 4 + 8
    assert list(every) == sorted(every, key=lambda s: s.key)
    assert [s for s in every if s.method == "eap" and (s.rule or s.steps)] == []
    more = SPACE.model_copy(update={"rule": ("right", "midpoint"), "selection": ("greedy", "topn")})
    assert len(grid(more)) == 2 * 4 + 4 * 8
    assert [str(s) for s in score_settings(SPACE)] == ["eap", "eap_ig (m = 5, right)", "eap_ig (m = 30, right)"]


def test_methods_without_a_path_have_one_form() -> None:
    assert setting("eap", "left", 7, "greedy", 0.8, 1.0) == setting("eap", "right", 5, "greedy", 0.8, 1.0)
    assert setting("eap_ig", "left", 7, "greedy", 0.8, 1.0) != setting("eap_ig", "right", 7, "greedy", 0.8, 1.0)


def test_the_baselines_are_those_of_the_paper_and_of_its_code() -> None:
    assert {name: (s.steps, s.threshold, s.rule) for name, s in BASELINES.items()} == {
        "paper": (5, 0.8, "right"),
        "code": (30, 0.8, "right"),
    }
    assert set(baselines(SPACE)) == {"paper", "code"}
    assert set(baselines(SPACE.model_copy(update={"steps": (5,)}))) == {"paper"}
    assert baselines(SPACE.model_copy(update={"examples": (0.5,)})) == {}


def test_a_threshold_may_lie_between_those_named() -> None:
    between = dataclasses.replace(BASELINES["paper"], threshold=0.71)
    assert contains(SPACE, between)
    assert not contains(SPACE, dataclasses.replace(between, threshold=0.81))
    assert not contains(SPACE, dataclasses.replace(between, steps=6))
    assert contains(SPACE, setting("eap", "", 0, "greedy", 0.7, 1.0))


def test_checkpoints_are_named_by_step_last_or_share() -> None:
    refs = [CheckpointRef("s", "small-s0", "small", 0, n, n, f"step{n}", "w") for n in (0, 10, 64, 100)]
    chosen = {name: choose_ref(f"small-s0@{name}", refs).step for name in ("last", "10", "60%", "30%", "0%", "100%")}
    assert chosen == {"last": 100, "10": 10, "60%": 64, "30%": 10, "0%": 0, "100%": 100}
    with pytest.raises(OntogenyError, match=r"no checkpoint of step 11; there are: 0, 10, 64, 100"):
        choose_ref("small-s0@11", refs)
    with pytest.raises(OntogenyError, match="has no checkpoints"):
        choose_ref("small-s0@last", [])


def test_a_study_made_with_other_data_is_refused_by_name(tmp_path: Path) -> None:
    spec = TuningSpec("x", "letters", "multi", (place(tmp_path),))
    check_facts("x", spec.facts, spec.facts)
    moved = dataclasses.replace(spec.places[0], source=StudyFolders(tmp_path / "elsewhere"), cache=tmp_path / "other")
    check_facts("x", spec.facts, dataclasses.replace(spec, places=(moved,)).facts)
    data = dataclasses.replace(spec.places[0], digest="another")
    with pytest.raises(OntogenyError, match=r"made with other dataset:\n  dataset: .* then, another now"):
        check_facts("x", spec.facts, dataclasses.replace(spec, places=(data,)).facts)
    ref = dataclasses.replace(spec.places[0].ref, weights_digest="other weights")
    trained = dataclasses.replace(spec.places[0], ref=ref)
    with pytest.raises(OntogenyError, match="other checkpoints"):
        check_facts("x", spec.facts, dataclasses.replace(spec, places=(trained,)).facts)
    wider = spec.places[0].tune.model_copy(update={"space": SpaceParams(), "target": 0.9})
    with pytest.raises(OntogenyError, match="target, space"):
        check_facts("x", spec.facts, dataclasses.replace(spec, places=(dataclasses.replace(data, tune=wider),)).facts)


def test_what_is_in_the_cache_is_not_done_again(tmp_path: Path) -> None:
    spec = TuningSpec("x", "letters", "grid", (place(tmp_path),))
    jobs = grid_jobs(spec)
    assert [job.name for job in jobs] == [
        "small-s0@8 eap_ig (m = 30, right)",
        "small-s0@8 exact",
        "small-s0@8 eap_ig (m = 5, right)",
        "small-s0@8 eap",
    ]
    run_here(jobs[2:])
    assert [job.name for job in grid_jobs(spec)] == [job.name for job in jobs[:2]]
    assert learned(spec) == spec.places
