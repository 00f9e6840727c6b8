"""Studies with gaps: other schedules, missing tasks, doubles, one checkpoint, NaN, failures. Handled, and counted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from ontogeny.core.results import CheckpointAnalysis, Estimate
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import Trajectory, follow
from ontogeny.series.claims import ALL
from support.synthetic_study import STEPS, TASKS, member, with_failure

PARAMS = TrajectoryParams(resamples=50)
IRREGULAR = (0, 8, 64, 108, 152, 256, 431, 609, 1024, 1218, 1722)


def without_value(record: MemberRecord, step: int, task: str) -> MemberRecord:
    """The behaviour of one task could not be measured at one step."""
    nothing = Estimate(math.nan, math.nan, math.nan)

    def of(analysis: CheckpointAnalysis) -> CheckpointAnalysis:
        if analysis.ref.step != step:
            return analysis
        result = analysis.tasks[task]
        behaviour = {split: dataclasses.replace(b, metric=nothing) for split, b in result.behaviour.items()}
        return dataclasses.replace(
            analysis, tasks=analysis.tasks | {task: dataclasses.replace(result, behaviour=behaviour)}
        )

    return dataclasses.replace(record, analyses=tuple(map(of, record.analyses)))


@pytest.fixture(scope="module")
def found() -> Trajectory:
    """nano: one checkpoint. small: a schedule of its own and no SVA. wide: a NaN. deep: a failure, and a double."""
    return follow(
        [
            member("nano", steps=(256,)),
            member("small", steps=IRREGULAR, tasks=TASKS[:3]),
            without_value(member("wide"), 512, "ioi"),
            with_failure(member("deep"), 2048),
        ],
        PARAMS,
    )


def row(table: pd.DataFrame, name: str, task: str) -> pd.Series:
    (found,) = [r for _, r in table[(table["member"] == name) & (table["task"] == task)].iterrows()]
    return found


def test_each_series_counts_what_it_used_and_left_out(found: Trajectory) -> None:
    small, wide, deep = (row(found.onsets, name, "ioi") for name in ("small-s0", "wide-s0", "deep-s0"))
    assert (small["checkpoints"], small["left_out"]) == (len(IRREGULAR), 0)
    assert (wide["checkpoints"], wide["left_out"]) == (len(STEPS) - 2, 2), "step 1 has step 0's weights; 512 is NaN"
    assert (deep["checkpoints"], deep["left_out"]) == (len(STEPS) - 1, 1)
    assert {small["status"], wide["status"], deep["status"]} == {"found"}
    assert not len(found.onsets[(found.onsets["member"] == "small-s0") & (found.onsets["task"] == "sva")])
    nan = found.table.query("member == 'wide-s0' and step == 512 and quantity == 'behaviour/held_out/metric'")
    assert nan.set_index("task")["status"].to_dict() == {t: "nan" if t == "ioi" else "measured" for t in TASKS}


def test_one_checkpoint_is_an_answer_and_no_onset(found: Trajectory) -> None:
    nano = found.onsets[found.onsets["member"] == "nano-s0"]
    assert set(nano["status"]) <= {"never", "before the first checkpoint"}
    assert (nano["checkpoints"] == 1).all()
    assert (nano["reason"].str.len() > 0).all()
    assert nano["onset_low"].isna().all()


def test_failures_are_rows_and_counts(found: Trajectory) -> None:
    lost = found.table[found.table["status"] == "failed"]
    assert lost[["member", "step"]].values.tolist() == [["deep-s0", 2048]]
    assert found.summary.set_index(["member", "task"]).loc[("deep-s0", "ioi"), "failed"] == 1


def test_sizes_count_what_has_none(found: Trajectory) -> None:
    counts = ["checkpoints", "censored", "other", "duplicates", "not_full"]
    for each in found.sizes.to_dict("records"):
        onset = found.onsets[(found.onsets["member"] == f"{each['scale']}-s0") & (found.onsets["task"] == each["task"])]
        start = onset["tokens"].iloc[0]
        if pd.isna(start):
            assert each["status"] == "no onset"
            continue
        rows = found.table.query("scale == @each['scale'] and task == @each['task'] and quantity == 'circuit/edges'")
        assert sum(each[name] for name in counts) == (rows["tokens"] >= start).sum()
    wide = found.fluctuation.query("member == 'wide-s0' and task == 'gendered_pronoun' and quantity == 'circuit/edges'")
    assert (wide["checkpoints"] + wide["left_out"]).item() == len(STEPS)


def test_every_claim_has_a_verdict_with_a_reason_whatever_is_missing(found: Trajectory) -> None:
    whole = found.claims[found.claims["about"] == ALL]
    assert whole["claim"].tolist() == [f"C{n}" for n in range(1, 13)]
    assert (found.claims["reason"].str.len() > 0).all()
    c1 = found.claims[(found.claims["claim"] == "C1") & (found.claims["about"] == "sva")].iloc[0]
    assert c1["verdict"] in ("undecided", "contradicted")
    differences = found.differences.query("task == 'ioi' and smaller == 'nano'")
    assert set(differences["status"]) == {"no onset at nano"}


@pytest.mark.parametrize("records", [[], [MemberRecord("ladder", "tiny-s0", (), {})], [member("deep", steps=(0,))]])
def test_a_study_of_next_to_nothing(records: list[MemberRecord]) -> None:
    trajectory = follow(records, PARAMS)
    assert len(trajectory.claims[trajectory.claims["about"] == ALL]) == 12
    assert "supported" not in set(trajectory.claims["verdict"])
    assert not np.isfinite(trajectory.sizes["edges"].astype(float)).any()
