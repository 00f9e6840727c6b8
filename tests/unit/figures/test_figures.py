"""Figures are tested on their rows, and on the bytes of their files; a person looks at the pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ontogeny.figures import FIGURES, curve_rows, diagram_rows, draw_bundle, open_bundle, pictures
from ontogeny.figures.curve import final_curve_rows
from ontogeny.figures.diagram import draw_diagram, node_of, place
from ontogeny.figures.style import (
    TASK_TITLES,
    by_scale,
    member_handles,
    member_labels,
    member_styles,
    new_figure,
    render,
    short,
    styled,
    task_title,
    token_axis,
)
from ontogeny.figures.training import (
    MOST_OF_THE_GRAPH,
    behaviour_rows,
    draw_behaviour,
    draw_jaccard,
    draw_size,
    jaccard_rows,
    matched_jaccard_rows,
    size_label,
    size_rows,
)
from ontogeny.params import TrajectoryParams
from ontogeny.series import Trajectory, follow, scale_colours
from support.synthetic_study import SCALES, STEPS, TASKS, member, study

RECORDS = study(steps=(*STEPS[:2], *STEPS[8:]))
LAST = RECORDS[3].analyses[-1]


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    return follow(RECORDS, TrajectoryParams())


def test_behaviour_rows_mark_one_onset_a_line_that_has_one(trajectory: Trajectory) -> None:
    rows = behaviour_rows(trajectory)
    assert len(rows) == len(SCALES) * len(TASKS) * len(RECORDS[0].analyses)
    marked = rows.groupby(["member", "task"])["onset"].sum()
    answers = trajectory.onsets.set_index(["member", "task"])["status"]
    assert set(answers) == {"found", "never"}
    assert (marked == (answers == "found").astype(int).reindex(marked.index)).all()
    where = rows[rows["onset"] & (rows["member"] == "deep-s0") & (rows["task"] == "ioi")]
    assert where["step"].item() == trajectory.onsets.query("member == 'deep-s0' and task == 'ioi'")["step"].item()


def test_size_rows_have_a_status_at_every_checkpoint_and_sizes_only_where_found(trajectory: Trajectory) -> None:
    rows = size_rows(trajectory)
    assert len(rows) == len(SCALES) * len(TASKS) * len(RECORDS[0].analyses)
    assert {"found", "not_learned", "threshold_unmet", "trivial"} == set(rows["status"])
    assert rows.loc[rows["status"] == "found", "edges"].notna().all()
    assert rows.loc[rows["status"] != "found", "edges"].isna().all()
    assert rows.loc[rows["status"] == "threshold_unmet", "best_edges"].notna().all()


def test_jaccard_rows_are_the_tables_numbers(trajectory: Trajectory) -> None:
    rows = jaccard_rows(trajectory)
    table = trajectory.table[trajectory.table["quantity"] == "similarity/edges/previous"]
    assert len(rows) == len(table)
    assert np.nansum(rows["value"]) == pytest.approx(np.nansum(table["value"]))
    assert set(matched_jaccard_rows(trajectory)["kind"]) == {"edges_at_5pct"}


def test_matched_circuits_say_their_size_and_are_left_out_where_it_is_most_of_the_graph() -> None:
    few = follow(study(("nano", "deep"), STEPS[-4:], ("ioi", "sva")), TrajectoryParams(matched_floor=60, resamples=50))
    rows = matched_jaccard_rows(few)
    nano, deep = (rows[rows["member"] == f"{scale}-s0"] for scale in ("nano", "deep"))
    graphs = {scale: SCALES[scale].graph.n_edges for scale in ("nano", "deep")}
    assert graphs["nano"] / 2 < 60
    assert set(zip(nano["grown"], nano["graph_edges"])) == {(60, graphs["nano"])}
    assert nano["value"].isna().all()
    assert set(nano["status"]) == {MOST_OF_THE_GRAPH}
    assert set(deep["grown"]) == {max(60, round(0.05 * graphs["deep"]))}
    table = few.table[few.table["quantity"] == "similarity/edges_at_5pct/previous"].set_index("member")
    assert deep["value"].tolist() == table.loc["deep-s0", "value"].tolist()
    assert size_label(rows) == "grown to 5 % of the edges, at least 60"
    assert size_label(rows.assign(grown=(rows["graph_edges"] * 0.05).round())) == "grown to 5 % of the edges"
    words = [text.get_text() for axes in draw_jaccard(rows).axes for text in axes.texts]
    assert set(words) == {f"nano: not shown, 60 of {graphs['nano']} edges"}


def test_members_of_a_scale_share_a_line_of_words_and_many_have_thin_lines() -> None:
    columns = ["member", "scale", "seed", "parameters", "task"]
    rows = pd.DataFrame(
        [(f"{s}-s{i}", s, i, p, "ioi") for s, p in (("a", 1), ("b", 9)) for i in range(5)], columns=columns
    )
    said = {"a-s0": "never", "a-s3": "first"} | {f"b-s{i}": "never" for i in range(5)}
    assert by_scale(rows, said) == "b: never\na: never (s0), first (s3)"
    assert by_scale(rows, {}) == ""
    assert by_scale(rows, dict.fromkeys(["a-s0", "a-s3"], "never")) == "a: never (s0, s3)"
    many, few = member_styles(styled(rows, rows)), member_styles(styled(rows[:6], rows))
    assert many["a-s0"]["linewidth"] < few["a-s0"]["linewidth"]
    assert len(member_handles(styled(rows, rows))) == 2 + 5


def test_diagram_rows_are_the_circuits_edges_strongest_first() -> None:
    rows = diagram_rows(LAST, "sva")
    circuit = LAST.tasks["sva"].circuit.circuit
    assert circuit is not None
    assert sorted(rows["edge"]) == sorted(circuit.edge_names)
    assert rows["score"].abs().is_monotonic_decreasing
    assert not len(diagram_rows(RECORDS[0].analyses[0], "sva")), "not learned: no circuit, no rows"


def test_every_node_has_its_own_place_layers_from_left_to_right() -> None:
    rows = diagram_rows(LAST, "sva")
    boxes = place(rows)
    assert set(boxes) == {"input", "logits"} | set(rows["writer"]) | {node_of(r) for r in rows["reader"]}
    places = [(round(b.x, 3), round(b.y, 3)) for b in boxes.values()]
    assert len(set(places)) == len(places)
    assert all(boxes[w].x < boxes[node_of(r)].x for w, r in zip(rows["writer"], rows["reader"]))
    heads = [b for b in boxes.values() if b.is_head]
    columns = {b.x for b in heads}
    assert len(columns) > 2
    for x in columns:
        ys = sorted(b.y for b in heads if b.x == x)
        assert all(high - low > 0.3 for low, high in pairwise(ys)), "boxes of a column do not overlap"


def test_with_sequential_blocks_an_mlp_stands_after_the_heads_it_reads() -> None:
    rows = diagram_rows(LAST, "sva").iloc[:1]
    edges = [("input", "a0.h0<q>", "q"), ("a0.h0", "m0", "mlp"), ("m0", "logits", "logits")]
    made = pd.concat([rows.assign(writer=w, reader=r, kind=k, score=1.0) for w, r, k in edges])
    boxes = place(made)
    assert boxes["input"].x < boxes["a0.h0"].x < boxes["m0"].x < boxes["logits"].x


def test_curve_rows_hold_the_curve_its_baselines_and_the_chosen_size() -> None:
    rows = curve_rows(LAST, "ioi")
    result = LAST.tasks["ioi"].circuit
    assert (rows["part"] == "circuit").sum() == len(result.curve)
    assert (rows["part"] == "random").sum() == sum(len(p.random) for p in result.curve) > 0
    (chosen,) = rows[rows["part"] == "chosen"].itertuples()
    assert (chosen.kept, chosen.raw) == (result.kept, 0.81)
    assert set(final_curve_rows(RECORDS)["step"]) == {STEPS[-1]}
    assert not len(final_curve_rows([member("nano", steps=())]))


def test_scales_keep_their_colours_and_large_ones_are_darker() -> None:
    rows = pd.DataFrame({"scale": list(SCALES), "parameters": [m.parameters for m in SCALES.values()]})
    colours = scale_colours(rows)
    assert colours == scale_colours(rows.sample(frac=1, random_state=0))
    assert len(set(colours.values())) == len(SCALES)
    brightness = [sum(int(colours[s][i : i + 2], 16) for i in (1, 3, 5)) for s in ("deep", "wide", "small", "nano")]
    assert brightness == sorted(brightness)


def test_a_member_looks_the_same_in_a_picture_that_shows_few(trajectory: Trajectory) -> None:
    everyone = behaviour_rows(trajectory)
    few = jaccard_rows(trajectory)
    few = few[few["member"].isin(["small-s0", "wide-s0"])]
    for rows in (few, styled(final_curve_rows(RECORDS[1:2]), trajectory.table)):
        styles = member_styles(rows)
        assert 0 < len(styles) < 4
        assert styles.items() <= member_styles(everyone).items()
    assert [h.get_label() for h in member_handles(everyone)] == [
        "deep (1.15M)", "wide (800K)", "small (420K)", "nano (130K)"
    ]  # fmt: skip


def test_seeds_of_a_scale_share_its_colour_and_differ_in_dashes() -> None:
    everyone = pd.DataFrame(
        {"member": ["a-s0", "a-s1", "b-s1"], "scale": ["a", "a", "b"], "seed": [0, 1, 1], "parameters": [9, 9, 5]}
    ).assign(task="ioi")
    rows = styled(everyone, everyone)
    styles = member_styles(rows)
    assert styles["a-s0"]["color"] == styles["a-s1"]["color"] != styles["b-s1"]["color"]
    assert styles["a-s0"]["linestyle"] != styles["a-s1"]["linestyle"] == styles["b-s1"]["linestyle"]
    assert [h.get_label() for h in member_handles(rows)] == ["a (9)", "b (5)", "seed 0", "seed 1"]
    assert member_labels(rows)["a-s0"] == "a-s0"


def test_token_axis_shows_step_0_at_its_left_end() -> None:
    axes = new_figure(3, 2).add_axes((0.1, 0.1, 0.8, 0.8))
    tokens = [0.0, 1536.0, 98304.0, 4.6e6]
    token_axis(axes, tokens)
    shown = axes.transData.transform([(t, 0) for t in tokens])[:, 0]
    assert (np.diff(shown) > 5).all()
    assert axes.get_xlim()[0] < 0
    labels = [axes.xaxis.get_major_formatter()(t, 0) for t in axes.xaxis.get_majorticklocs()]
    assert labels == ["0", "10K", "100K", "1M"]
    # Equal factors are equal distances, as on a logarithmic axis.
    at = axes.transData.transform([(t, 0) for t in (1e4, 1e5, 1e6)])[:, 0]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1])


@pytest.mark.parametrize(("first", "last"), [(2.6e9, 6.7e9), (3.3e9, 4.1e9), (1e4, 5e6), (1e3, 1e9), (4e9, 4e11)])
def test_a_token_axis_has_some_ticks_and_not_too_many(first: float, last: float) -> None:
    axes = new_figure(3, 2).add_axes((0.1, 0.1, 0.8, 0.8))
    token_axis(axes, [first, last])
    low, high = axes.get_xlim()
    assert 2 <= sum(low <= tick <= high for tick in axes.xaxis.get_majorticklocs()) <= 7


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (1536, "1.54K"), (4.6e6, "4.6M"), (999.0, "999"), (2.1e11, "210B"), (3e12, "3T")]
)
def test_short_numbers(number: float, text: str) -> None:
    assert short(number) == text


def test_a_task_that_we_did_not_write_keeps_its_name() -> None:
    assert task_title("my_task") == "my task"
    assert task_title("ioi") == TASK_TITLES["ioi"]


def test_every_figure_of_the_registry_is_drawn() -> None:
    records = [member("deep", steps=STEPS[-8:], tasks=("ioi", "sva"))]
    made = list(pictures(records, follow(records, TrajectoryParams())))
    names = [picture.name for picture in made]
    assert len(set(names)) == len(names)
    carried = {"transfer", "alikeness", "role_ablation", "drift"}  # of the stage `transfer`: test_transfer_figures.py
    assert {name.partition("/")[0] for name in names} == set(FIGURES) - carried
    assert {"circuit/ioi-deep-s0", "circuit/sva-deep-s0"} < set(names)
    for picture in made:
        files = picture.files(("png", "svg"), 40)
        assert files["png"].startswith(b"\x89PNG")
        assert ET.fromstring(files["svg"]).tag.endswith("svg")


def test_a_study_in_which_nothing_was_learnt_is_drawn_too() -> None:
    records = [member("nano", steps=(0, 1, 8), tasks=("ioi",)), member("deep", steps=(0,), tasks=("ioi",))]
    made = {p.name: p.files(("svg",), 40) for p in pictures(records, follow(records, TrajectoryParams()))}
    assert {"behaviour", "circuit_size", "overview"} <= set(made)
    assert not any(name.startswith("circuit/") for name in made)


def test_drawing_leaves_the_users_settings_alone(trajectory: Trajectory) -> None:
    with mpl.rc_context({"font.size": 31.0, "svg.hashsalt": "mine"}):
        text = render(draw_behaviour(behaviour_rows(trajectory)), "svg")
        assert mpl.rcParams["font.size"] == 31.0
        assert mpl.rcParams["svg.hashsalt"] == "mine"
    assert b"31px" not in text
    assert text == render(draw_behaviour(behaviour_rows(trajectory)), "svg")


def test_bundle_holds_the_pictures_and_a_page_that_stands_alone() -> None:
    files = open_bundle(draw_bundle(LAST, "ioi"))
    drawn = ["circuit.html", "circuit.png", "circuit.svg", "faithfulness.svg"]
    assert sorted(files) == ["algorithm/circuit.png", *drawn, "roles/roles.png"]
    page = files["circuit.html"].decode()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert page.count("<tr>") == 1 + len(diagram_rows(LAST, "ioi"))
    assert set(open_bundle(draw_bundle(RECORDS[0].analyses[0], "sva"))) == {"roles/roles.png"}
    assert set(open_bundle(draw_bundle(LAST, "sva"))) == {*drawn, "roles/roles.png"}
    bare = dataclasses.replace(RECORDS[0].analyses[0], roles={}, holders={}, algorithm=None)
    assert open_bundle(draw_bundle(bare, "sva")) == {}


def _digests() -> list[str]:
    record = member("small", steps=STEPS[-4:], tasks=("ioi",))
    size = draw_size(size_rows(follow([record], TrajectoryParams())))
    contents = (draw_bundle(record.analyses[-1], "ioi"), render(size, "png", 60), render(size, "svg"))
    return [hashlib.sha256(content).hexdigest() for content in contents]


def test_the_same_bytes_in_every_process() -> None:
    tests, here = Path(__file__).parents[2], Path(__file__).parent
    program = "from test_figures import _digests; print(*_digests())"
    environment = {"PYTHONPATH": f"{tests}:{here}", "PYTHONHASHSEED": "7", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == _digests()
    assert len(set(_digests())) == 3


def test_pictures_name_no_time_and_no_software() -> None:
    figure = draw_diagram(diagram_rows(LAST, "ioi"))
    svg = render(figure, "svg").decode()
    assert "dc:date" not in svg
    assert mpl.__version__ not in svg
    assert b"Software" not in render(figure, "png", 40)
