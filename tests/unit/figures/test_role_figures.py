"""Figures of roles and of the algorithm are tested on their rows; a person looks at the pictures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from ontogeny.core.roles import RoleScores
from ontogeny.figures import FIGURES, pictures, render
from ontogeny.figures.algorithm import algorithm_rows, repair_rows
from ontogeny.figures.algorithm_circuit import algorithm_circuit_rows, draw_algorithm_circuit
from ontogeny.figures.roles import (
    component_rows,
    draw_role_map,
    head_rows,
    role_colours,
    role_map_rows,
)
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import TASK_OF, Trajectory, circuit_heads, follow, role_table
from support.synthetic_study import ROLE_UNITS, STEPS, TASKS, member, study

RECORDS = study(steps=(*STEPS[:2], *STEPS[8:]))
MINE = ("components", "component_heads", "role_map", "algorithm", "algorithm_circuit", "self_repair")


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    return follow(RECORDS, TrajectoryParams())


def test_fig_2_follows_the_head_of_the_circuit_that_comes_first(trajectory: Trajectory) -> None:
    rows = component_rows(RECORDS, trajectory)
    assert set(rows["role"]) == set(TASK_OF)
    assert rows.groupby(["member", "role"])["head"].nunique().max() == 1
    table = role_table(RECORDS)
    record = RECORDS[2]
    for role, task in TASK_OF.items():
        shown = rows[(rows["member"] == record.member) & (rows["role"] == role)].sort_values("step")
        scores = table[(table["member"] == record.member) & (table["role"] == role)]
        circuits = [a.tasks[task].circuit for a in record.analyses]
        inside = {f"a{x}.h{y}" for c in circuits if c.status == "found" for x, y in circuit_heads(c.circuit)}
        level = 0.33 * scores["score"].max()
        arrived = scores[scores["head"].isin(inside) & (scores["score"] >= level)]
        (head,) = set(shown["head"])
        if not head:
            assert not len(arrived)
            assert shown["score"].isna().all()
            assert set(shown["reason"]) == {"no such head in the circuit"}
            continue
        assert arrived["step"].min() == arrived[arrived["head"] == head]["step"].min()
        assert shown["score"].tolist() == scores[scores["head"] == head].sort_values("step")["score"].tolist()
        assert shown["holds"].tolist() == scores[scores["head"] == head].sort_values("step")["holds"].tolist()
    assert len({head for head in rows["head"] if head}) > 2


def test_fig_2_says_why_a_model_has_no_line(trajectory: Trajectory) -> None:
    rows = component_rows(RECORDS, trajectory)
    nano = rows[(rows["member"] == "nano-s0") & (rows["role"] == "name_mover")]
    assert set(nano["reason"]) == {"no circuit"}
    assert nano["score"].isna().all()
    assert len(nano) == len(RECORDS[0].analyses) - 1, "a row a checkpoint, but for the duplicate"
    changed = [without(RECORDS[3], "induction")]
    unmeasured = component_rows(changed, dataclasses.replace(trajectory, heads=role_table(changed)))
    assert set(unmeasured[unmeasured["role"] == "induction"]["reason"]) == {"not measured"}


def without(record: MemberRecord, role: str) -> MemberRecord:
    """The same with one role that could not be measured."""
    nothing = torch.full_like(record.analyses[0].roles[role].score, math.nan)
    undefined = RoleScores(role, "undefined", "no words", nothing, nothing, {}, {})
    analyses = tuple(
        dataclasses.replace(a, roles=a.roles | {role: undefined}, holders=a.holders | {role: ()})
        for a in record.analyses
    )
    return dataclasses.replace(record, analyses=analyses)


def test_fig_3_has_the_five_heads_that_get_furthest(trajectory: Trajectory) -> None:
    rows = head_rows(RECORDS, trajectory)
    table = role_table(RECORDS)
    for (name, role), part in rows.groupby(["member", "role"]):
        peaks = table[(table["member"] == name) & (table["role"] == role)].groupby("head")["score"].max()
        assert set(part["head"]) == set(peaks.nlargest(5).index)
        first = part[part["rank"] == 0]["head"].iloc[0]
        assert peaks[first] == peaks.max()
    assert set(rows["member"]) == {r.member for r in RECORDS}


def test_the_role_map_shows_first_and_last_and_every_head(trajectory: Trajectory) -> None:
    rows = role_map_rows(RECORDS, trajectory)
    for record in RECORDS:
        part = rows[rows["member"] == record.member]
        steps = sorted(set(part["step"]))
        assert len(steps) == 8
        assert (steps[0], steps[-1]) == (record.analyses[0].ref.step, record.analyses[-1].ref.step)
        last = part[part["step"] == steps[-1]].set_index("head")["roles"]
        graph = record.analyses[-1].model.graph
        assert len(last) == graph.n_layers * graph.n_heads
        for role, heads in record.analyses[-1].holders.items():
            assert {h for h, text in last.items() if role in text.split()} == {f"a{x}.h{y}" for x, y in heads}
    nano = rows[rows["member"] == "nano-s0"].iloc[0]
    assert nano["undefined"] == "s_inhibition"
    assert nano["roles_of_study"].split() == list(ROLE_UNITS)


def test_roles_have_colours_of_their_own() -> None:
    colours = role_colours([*ROLE_UNITS, "mine", "yours"])
    assert len(set(colours.values())) == len(ROLE_UNITS) + 2
    assert role_colours(["successor"])["successor"] == colours["successor"]


def test_fig_4_rows_are_the_metrics_with_their_null_and_their_reasons(trajectory: Trajectory) -> None:
    rows = algorithm_rows(RECORDS, trajectory)
    assert len(rows) == len(RECORDS) * 3 * (len(RECORDS[0].analyses) - 1)
    record = RECORDS[3]
    for analysis in record.analyses[2:]:
        assert analysis.algorithm is not None
        here = rows[(rows["member"] == record.member) & (rows["step"] == analysis.ref.step)].set_index("metric")
        for name, metric in analysis.algorithm.metrics.items():
            found = here.loc[name]
            assert (found["status"], found["reason"]) == (metric.status, metric.reason)
            assert same(found["value"], metric.value)
            assert same(found["null_p95"], metric.null_p95)
    unlearnt = rows[(rows["step"] == 0) & (rows["member"] == record.member)]
    assert set(unlearnt["reason"]) == {"IOI is not learnt here."}
    assert unlearnt["value"].isna().all()


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def test_the_circuit_as_roles_has_what_was_found_at_the_end(trajectory: Trajectory) -> None:
    rows = algorithm_circuit_rows(RECORDS, trajectory)
    for record in RECORDS:
        found = record.analyses[-1].algorithm
        assert found is not None
        here = rows[rows["member"] == record.member]
        for name, metric in found.metrics.items():
            part = here[here["metric"] == name]
            said = part[part["part"] == "metric"].iloc[0]
            assert (said["status"], said["reason"]) == (metric.status, metric.reason)
            senders = part[part["part"] == "sender"]
            counted = {f"a{x}.h{y}" for x, y in metric.heads}
            assert set(senders[senders["counts"]]["head"]) == counted
            assert set(part[part["part"] == "receiver"]["head"]) == {f"a{x}.h{y}" for x, y in metric.receivers}
            for row in senders.itertuples():
                layer, head = map(int, row.head.removeprefix("a").split(".h"))
                assert row.effect == pytest.approx(float(found.effects[name].effect[layer, head]))
            others = senders[~senders["counts"].astype(bool)]["effect"].abs()
            assert len(others) <= 3
            assert others.is_monotonic_decreasing
    picture = render(draw_algorithm_circuit(rows[rows["member"] == "nano-s0"]), "svg").decode()
    assert "No head copies names." in picture
    assert picture.count("undefined") == 2


def test_self_repair_rows_name_the_head_that_makes_up_for_it(trajectory: Trajectory) -> None:
    rows = repair_rows(RECORDS, trajectory)
    assert set(rows["role"]) == {"name_mover", "copy_suppression"}
    last = RECORDS[3].analyses[-1]
    assert last.algorithm is not None
    repair = last.algorithm.repair[0]
    found = rows[(rows["member"] == "deep-s0") & (rows["step"] == last.ref.step) & (rows["role"] == repair.role)].iloc[
        0
    ]
    assert (found["lost"], found["taken_over"]) == (repair.lost, repair.taken_over)
    best = np.unravel_index(np.nanargmax(repair.change.numpy()), repair.change.shape)
    assert found["helper"] == f"a{best[0]}.h{best[1]}"
    nano = rows[(rows["member"] == "nano-s0") & (rows["role"] == "name_mover")]
    assert nano["taken_over"].isna().all()
    assert set(nano["helper"]) == {""}


@pytest.mark.parametrize(
    ("scales", "steps"), [(("nano",), (1722,)), (("nano", "deep"), (0, 1, 8)), (("deep",), (0, 431, 1722))]
)
def test_few_checkpoints_no_holders_and_undefined_metrics_are_drawn(
    scales: tuple[str, ...], steps: tuple[int, ...]
) -> None:
    records = study(scales, steps)
    made = {p.name: p for p in pictures(records, follow(records, TrajectoryParams()))}
    names = {name.partition("/")[0] for name in made} & set(MINE)
    assert names >= set(MINE) - ({"self_repair"} if max(steps) < 100 else set())
    for name in [n for n in made if n.partition("/")[0] in MINE]:
        assert made[name].files(("png",), 40)["png"].startswith(b"\x89PNG")


def test_a_study_without_roles_or_ioi_has_no_such_pictures() -> None:
    bare = [dataclasses.replace(RECORDS[3], analyses=tuple(
        dataclasses.replace(a, roles={}, holders={}, algorithm=None) for a in RECORDS[3].analyses[-3:]))]  # fmt: skip
    names = {p.name.partition("/")[0] for p in pictures(bare, follow(bare, TrajectoryParams()))}
    assert "behaviour" in names
    assert not names & set(MINE)
    assert set(MINE) <= set(FIGURES)
    without_ioi = [member("deep", STEPS[-3:], tasks=TASKS[1:])]
    names = {p.name.partition("/")[0] for p in pictures(without_ioi, follow(without_ioi, TrajectoryParams()))}
    assert "components" in names
    assert not names & {"algorithm", "algorithm_circuit", "self_repair"}


def test_a_large_model_is_drawn_in_a_bounded_picture(trajectory: Trajectory) -> None:
    rows = role_map_rows(RECORDS[3:], trajectory)
    wide = pd.concat([rows.assign(layer=rows["layer"] + 6 * i, head_index=rows["head_index"] + 4 * j)
                      for i in range(5) for j in range(8)])  # fmt: skip
    width, height = draw_role_map(wide).get_size_inches()
    assert width < 13
    assert height < 10
