"""Pictures of studies over settings: their rows say what the record says, and every one can be drawn."""

import dataclasses
import hashlib

from ontogeny.core.tuning import UNKNOWN, Recommendation
from ontogeny.figures.tuning import (
    carried_rows,
    importance_rows,
    reference_setting,
    step_rows,
    threshold_rows,
    trial_rows,
    tuning_pictures,
)
from support.tuning import record, trial

NAMES = ["trials", "history", "importances", "thresholds", "steps", "carried"]


def test_a_row_a_trial() -> None:
    known = record()
    rows = trial_rows(known)
    assert len(rows) == len(known.trials) == 9
    assert rows.index[rows["front"]].tolist() == [4, 7, 8]
    assert rows.index[rows["recommended"]].tolist() == [4]
    assert rows["baseline"].tolist() == ["", "", "", "", "paper", "", "", "code", ""]
    assert rows["feasible"].tolist() == [t.violation(0.8) <= 0 for t in known.trials]
    assert 0 < rows["feasible"].sum() < 9
    assert rows["edges"].tolist() == [t.edges for t in known.trials]
    assert rows["small-s0@8 tune"].tolist() == [t.evaluations["small-s0@8"].tune.value for t in known.trials]


def test_thresholds_are_those_of_the_papers_setting() -> None:
    known = record()
    rows = threshold_rows(known)
    assert rows.groupby("checkpoint")["threshold"].apply(list).tolist() == [[0.7, 0.8, 0.9]] * 2
    at = known.trials[5].evaluations["large-s0@8"]
    (last,) = rows[(rows["checkpoint"] == "large-s0@8") & (rows["threshold"] == 0.9)].to_dict("records")
    assert (last["edges"], last["edges_high"], last["held_out"]) == (at.edges, at.edges_high, at.held_out.value)
    others = dataclasses.replace(known, trials=known.trials[:3])
    assert reference_setting(others) == known.trials[0].setting
    assert set(threshold_rows(others)["setting"]) == {"eap_ig (m = 2, right), greedy, 100% of the prompts"}


def test_steps_carried_and_importances() -> None:
    known = record()
    steps = step_rows(known)
    assert steps[steps["enough"]]["steps"].tolist() == [5, 5]
    assert steps["passes"].tolist() == [5, 11, 61] * 2
    carried = carried_rows(known)
    assert carried["carries"].tolist() == [True, True, False, True]
    importances = importance_rows(known)
    assert importances.set_index(["objective", "choice"])["importance"]["edges"]["threshold"] == 0.9


def test_every_picture_is_drawn_and_always_the_same() -> None:
    known = dataclasses.replace(record(), mode="multi")
    drawn = {p.name: p.files(("png", "svg"), 60) for p in tuning_pictures(known)}
    assert list(drawn) == NAMES
    assert [p.name for p in tuning_pictures(record())] == [name for name in NAMES if name != "history"]
    assert all(len(files["png"]) > 5000 for files in drawn.values())
    assert all(files["svg"].startswith(b"<?xml") for files in drawn.values())
    again = {p.name: p.files(("png", "svg"), 60) for p in tuning_pictures(dataclasses.replace(record(), mode="multi"))}
    assert _hashes(drawn) == _hashes(again)


def test_a_study_without_trials_has_no_pictures_and_one_without_circuits_has_some() -> None:
    empty = dataclasses.replace(
        record(), trials=(), front=(), importances={}, quality=(), carried=(), recommended=Recommendation(None, "None.")
    )
    assert list(tuning_pictures(empty)) == []
    nan = float("nan")
    none = trial(5, 0.8, {"small-s0@8": (nan, nan)})
    for picture in tuning_pictures(dataclasses.replace(empty, trials=(none,))):
        assert picture.files(("png",), 60)["png"]


def test_a_checkpoint_without_a_truth_can_be_drawn() -> None:
    known = record()
    quality = tuple(dataclasses.replace(q, spearman=UNKNOWN, overlap=UNKNOWN) for q in known.quality)
    (picture,) = [p for p in tuning_pictures(dataclasses.replace(known, quality=quality)) if p.name == "steps"]
    assert picture.rows["spearman"].isna().all()
    assert picture.files(("png",), 60)["png"]


def _hashes(drawn: dict[str, dict[str, bytes]]) -> dict[tuple[str, str], str]:
    return {(n, k): hashlib.sha256(content).hexdigest() for n, files in drawn.items() for k, content in files.items()}
