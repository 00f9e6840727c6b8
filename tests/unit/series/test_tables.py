"""The tidy table, the summary and the metrics file."""

from __future__ import annotations

import dataclasses
import json
import math

import pandas as pd
import pytest

from ontogeny.core.results import Estimate
from ontogeny.params import TrajectoryParams
from ontogeny.series import COLUMNS, dvc_metrics, follow, headline, measures, mechanism_measures, tidy
from support.synthetic_study import STEPS, TASKS, member, study, with_failure

PARAMS = TrajectoryParams()


def test_every_number_of_every_checkpoint_has_a_row() -> None:
    record = member("small")
    table = tidy([record])
    assert tuple(table.columns) == COLUMNS
    analysis = record.analyses[-1]
    for task, result in analysis.tasks.items():
        rows = table[(table["step"] == STEPS[-1]) & (table["task"] == task)].set_index("quantity")
        expected = measures(result, analysis.model.graph) | mechanism_measures(analysis, task)
        assert set(rows.index) == set(expected)
        assert rows.loc["behaviour/held_out/metric", "low"] == result.behaviour["held_out"].metric.low
        assert rows.loc["circuit/edges", "value"] == result.circuit.kept
        assert rows.loc["circuit/edges_share", "value"] == pytest.approx(result.circuit.kept / 463)
        assert rows.loc["faithfulness/held_out/raw", "value"] == result.circuit.faithfulness["held_out"].raw


def test_a_size_is_a_size_only_where_a_circuit_was_found() -> None:
    table = tidy([member("nano")])
    unmet = table[(table["status"] == "threshold_unmet") & (table["task"] == "ioi")]
    assert len(unmet)
    assert unmet.loc[unmet["quantity"].isin(["circuit/edges", "circuit/nodes", "circuit/asked"]), "value"].isna().all()
    assert (unmet.loc[unmet["quantity"] == "circuit/best_edges", "value"] > 0).all()
    assert (unmet.loc[unmet["quantity"] == "circuit/found", "value"] == 0).all()
    unlearnt = table[(table["status"] == "not_learned") & table["quantity"].str.startswith("circuit/best")]
    assert len(unlearnt)
    assert unlearnt["value"].isna().all()


def test_duplicates_are_flagged_and_failures_have_a_row() -> None:
    table = tidy([with_failure(member("nano"), 777)])
    assert set(table.loc[table["step"] == 1, "duplicate_of"]) == {0}
    assert table.loc[table["step"] == 8, "duplicate_of"].isna().all()
    (failed,) = table[table["status"] == "failed"].itertuples()
    assert (failed.step, failed.quantity) == (777, "checkpoint")
    assert math.isnan(failed.value)


def test_headline_takes_the_held_out_split_or_the_best_there_is() -> None:
    record = member("nano", tasks=("ioi", "sva"))
    parts = tuple(
        dataclasses.replace(a, tasks=a.tasks | {"sva": dataclasses.replace(
            a.tasks["sva"], behaviour={"discover": a.tasks["sva"].behaviour["discover"]})})
        for a in record.analyses
    )  # fmt: skip
    shown = headline(tidy([dataclasses.replace(record, analyses=parts)]))
    assert set(shown.loc[shown["task"] == "ioi", "quantity"]) == {"behaviour/held_out/metric"}
    assert set(shown.loc[shown["task"] == "sva", "quantity"]) == {"behaviour/discover/metric"}


def test_summary_is_the_last_checkpoint_and_the_onset() -> None:
    records = study()
    summary = follow(records, PARAMS).summary.set_index(["member", "task"])
    assert len(summary) == 16
    row = summary.loc[("deep-s0", "ioi")]
    last = records[3].analyses[-1].tasks["ioi"]
    assert row["step"] == STEPS[-1]
    assert row["metric"] == last.behaviour["held_out"].metric.value
    assert (row["edges_asked"], row["edges_kept"]) == (last.circuit.asked, last.circuit.kept)
    assert row["faithfulness_discover"] == 0.81
    assert row["faithfulness_held_out"] == pytest.approx(0.78)
    assert row["status"] == "found"
    assert (row["checkpoints"], row["failed"]) == (len(STEPS), 0)
    assert summary.loc[("nano-s0", "sva"), "onset"] == "never"
    unmet = summary.loc[("nano-s0", "ioi")]
    assert (unmet["status"], pd.isna(unmet["edges_asked"])) == ("threshold_unmet", True)
    assert unmet["edges_kept"] > 0


def test_metrics_file_has_null_and_never_nan() -> None:
    metrics = dvc_metrics(follow(study(), PARAMS).summary)
    text = json.dumps(metrics, allow_nan=False)
    assert set(metrics) == {"nano-s0", "small-s0", "wide-s0", "deep-s0"}
    assert set(metrics["nano-s0"]) == set(TASKS)
    assert metrics["nano-s0"]["sva"]["onset_step"] is None
    assert metrics["nano-s0"]["sva"]["faithfulness_held_out"] is None
    assert isinstance(metrics["deep-s0"]["ioi"]["onset_step"], int)
    assert isinstance(metrics["deep-s0"]["ioi"]["metric"], float)
    assert json.loads(text) == metrics


def test_a_value_that_is_not_finite_has_a_status_and_stays_out_of_the_metrics() -> None:
    record = member("deep", steps=(64,), tasks=("ioi",))
    analysis = record.analyses[0]
    broken = Estimate(math.nan, math.nan, math.nan)
    behaviour = {s: dataclasses.replace(b, metric=broken) for s, b in analysis.tasks["ioi"].behaviour.items()}
    task = dataclasses.replace(analysis.tasks["ioi"], behaviour=behaviour)
    record = dataclasses.replace(record, analyses=(dataclasses.replace(analysis, tasks={"ioi": task}),))
    trajectory = follow([record], PARAMS)
    rows = trajectory.table[trajectory.table["quantity"] == "behaviour/held_out/metric"]
    assert rows["status"].tolist() == ["nan"]
    assert dvc_metrics(trajectory.summary)["deep-s0"]["ioi"]["metric"] is None


def test_a_member_of_which_everything_failed_is_not_dropped() -> None:
    lost = with_failure(member("nano", steps=()), 7)
    trajectory = follow([lost, member("deep", steps=(0, 64))], PARAMS)
    row = trajectory.summary.set_index("member").loc["nano-s0"]
    assert (row["status"], row["failed"], row["checkpoints"]) == ("failed", 1, 0)
    assert dvc_metrics(trajectory.summary)["nano-s0"] == {"all": {"failed": 1}}
    alone = follow([lost], PARAMS)
    assert alone.summary["status"].tolist() == ["failed"]


def test_one_single_checkpoint_and_unequal_schedules() -> None:
    trajectory = follow([member("deep", steps=(1722,)), member("nano", steps=(0, 64, 1722))], PARAMS)
    assert set(trajectory.summary["checkpoints"]) == {1, 3}
    deep = trajectory.onsets[trajectory.onsets["scale"] == "deep"]
    assert set(deep["status"]) == {"never"}, "one checkpoint cannot be above the threshold twice in a row"
