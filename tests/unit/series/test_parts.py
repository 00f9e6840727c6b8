"""Members one by one, then put together: the same as all at once."""

import dataclasses

import pandas as pd

from ontogeny.params import ClaimsParams, TrajectoryParams
from ontogeny.series import follow, join
from ontogeny.series.parts import Part, part_of, together
from support.synthetic_study import study, with_failure
from support.synthetic_transfers import transfers

PARAMS = TrajectoryParams(resamples=50, null_circuits=3)
RECORDS = [*study(("nano", "deep"), seeds=2)[:3], with_failure(study(("wide",))[0], 1024)]


def same(one: object, other: object) -> bool:
    """Tables and series alike; thin records by their checkpoints and the circuits that they keep."""
    if isinstance(one, pd.DataFrame):
        assert isinstance(other, pd.DataFrame)
        pd.testing.assert_frame_equal(one, other)
        return True
    return repr(one) == repr(other)


def test_the_part_of_several_members_is_their_parts_together() -> None:
    whole, single = part_of(RECORDS, PARAMS), together([part_of([record], PARAMS) for record in RECORDS])
    for field in dataclasses.fields(Part):
        assert len(getattr(whole, field.name)) > 0, field.name
        assert same(getattr(single, field.name), getattr(whole, field.name)), field.name


def test_a_study_is_the_same_in_parts_of_any_size() -> None:
    carried = transfers(RECORDS)
    followed = follow(RECORDS, PARAMS, transfers=carried)
    joined = join([part_of(RECORDS[:3], PARAMS), part_of(RECORDS[3:], PARAMS)], PARAMS, transfers=carried)
    for field in dataclasses.fields(followed):
        pd.testing.assert_frame_equal(getattr(joined, field.name), getattr(followed, field.name))
    assert len(followed.role_graph_likeness) > 6
    assert set(followed.table["member"]) == {record.member for record in RECORDS}


def test_kept_records_hold_the_last_circuits_and_nothing_else() -> None:
    record = next(record for record in RECORDS if record.member == "deep-s0")
    (thin,) = part_of([record], PARAMS).records
    assert [a.ref for a in thin.analyses] == [a.ref for a in record.analyses]
    kept = {(a.ref.step, task): result for a in thin.analyses for task, result in a.tasks.items()}
    assert sorted(task for _, task in kept) == sorted(record.analyses[-1].tasks), "one of each task"
    for (step, task), result in kept.items():
        later = [a.tasks[task].circuit.status for a in record.analyses if a.ref.step > step]
        assert result.circuit.status == "found"
        assert "found" not in later


def test_no_rule_of_a_claim_changes_a_part() -> None:
    strict = PARAMS.model_copy(update={"claims": ClaimsParams(alike_octaves=0.01, least_checkpoints=50)})
    one, other = part_of(RECORDS[:1], PARAMS), part_of(RECORDS[:1], strict)
    assert all(same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Part))
    assert not join([one], PARAMS).claims.equals(join([one], strict).claims)
