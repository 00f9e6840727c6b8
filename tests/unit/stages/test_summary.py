"""The summary's tables, from a made-up study."""

import dataclasses
import math
import re
from collections.abc import Mapping
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from ontogeny.core.results import Behaviour, Estimate
from ontogeny.execution.examination import Examination
from ontogeny.params import ClaimsParams, TrajectoryParams
from ontogeny.series import alikeness, follow, transfer_table
from ontogeny.series.claims import ALL, Claim, texts
from ontogeny.series.claims import claims_table as table_of
from ontogeny.stages.claims import claims_table, parts_table
from ontogeny.stages.learning import LEARNT, verdicts
from ontogeny.stages.mechanism import (
    algorithm_table,
    check_table,
    handover_sentence,
    other_algorithms,
    role_table,
)
from ontogeny.stages.reproduce import Timing
from ontogeny.stages.summary import alikeness_table, learning_table, main_table, probe_table, timing_table
from ontogeny.stages.terminal import number, percent, whole
from ontogeny.tasks import task_names
from ontogeny.tasks.probes import ProbeResult
from support.synthetic_study import STEPS, study
from support.synthetic_transfers import transfers


def text(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def behaviour(metric: float, corrupted: float = 0.0, accuracy: float = 1.0) -> Behaviour:
    m, c, a = (Estimate(value, value, value) for value in (metric, corrupted, accuracy))
    return Behaviour(m, c, m, a, a, a, examples=70)


@pytest.mark.parametrize(
    ("task", "found", "blind", "passed"),
    [
        ("ioi", behaviour(1.0, accuracy=0.85), 0.0, (True, True)),
        ("ioi", behaviour(0.99, accuracy=0.84), 0.0, (False, False)),
        ("gendered_pronoun", behaviour(1.99), 0.0, (False,)),
        ("greater_than", behaviour(0.6, -0.1), 0.3, (True, True, True)),
        ("greater_than", behaviour(0.7, 0.1), 0.5, (True, False, False)),
        ("greater_than", behaviour(0.7, -0.1), math.nan, (True, True, False)),
        ("sva", behaviour(math.nan), 0.0, (False,)),
    ],
)
def test_thresholds_of_learning(task: str, found: Behaviour, blind: float, passed: tuple[bool, ...]) -> None:
    assert tuple(verdict.passed for verdict in verdicts(task, found, blind)) == passed


def test_every_threshold_is_of_a_known_task() -> None:
    assert set(LEARNT) <= set(task_names())
    assert verdicts("chess", behaviour(1.0), 0.0) == ()


def test_the_main_table_has_a_row_a_member_and_task() -> None:
    records = study(("nano", "deep"))
    trajectory = follow(records, TrajectoryParams())
    shown = text(main_table(trajectory.summary))
    for row in trajectory.summary.to_dict("records"):
        (line,) = [line for line in shown.splitlines() if row["member"] in line and f" {row['task']} " in line]
        assert str(row["status"]) in line
        assert number(row["metric"]) in line
        assert whole(row["edges_kept"]) in line
        assert f"{row['parameters']:,}" in line
    assert len(trajectory.summary) == 8


def test_without_wide_it_fits_an_old_terminal() -> None:
    summary = follow(study(("nano", "deep")), TrajectoryParams()).summary
    lines = text(main_table(summary, wide=False)).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    (line,) = [line.split() for line in lines if "deep-s0" in line and "gendered_pronoun" in line]
    row = summary[(summary["member"] == "deep-s0") & (summary["task"] == "gendered_pronoun")].iloc[0]
    assert line[2] == number(row["metric"])
    assert line[-1] == row["status"]
    assert not any("…" in line for line in lines)


def test_the_learning_table_says_yes_and_no() -> None:
    records = study(("nano", "deep"))
    exams: Mapping[str, Examination | None] = {"nano-s0": None, "deep-s0": Examination(1722, {}, {"greater_than": 0.0})}
    lines = text(learning_table(records, dict(exams))).splitlines()
    verdict = {tuple(line.split()[:2]): line.split()[2] for line in lines if "-s0" in line}
    assert len(verdict) == 8
    assert verdict["nano-s0", "ioi"] == "no"
    assert verdict["nano-s0", "greater_than"] == "no"
    assert verdict["deep-s0", "gendered_pronoun"] == "yes"


def test_the_probe_table_leaves_out_who_is_not_there() -> None:
    probes = {"standard": ProbeResult(0.9, 0.5, 0.25, None), "bystander": ProbeResult(0.7, 0.5, 0.125, 0.0625)}
    lines = text(probe_table({"small-s0": Examination(8, probes, {}), "lost-s0": None})).splitlines()
    (standard,) = [line.split() for line in lines if "standard" in line]
    (bystander,) = [line.split() for line in lines if line.split()[1:2] == ["bystander"]]
    assert standard == ["small-s0", "standard", "0.90", "0.50", "0.25"]
    assert bystander == ["small-s0", "bystander", "0.70", "0.50", "0.12", "0.06"]
    assert "lost-s0" not in "".join(lines)


def test_an_undefined_number_is_a_dash() -> None:
    assert [number(math.nan), whole(None), percent(math.nan)] == ["-", "-", "-"]
    assert [number(0.126), whole(1234.0), percent(0.0514)] == ["0.13", "1,234", "5.1 %"]


def test_the_phases_add_up() -> None:
    stages = [Timing("analyse", "a", 60.0), Timing("analyse", "b", 30.0), Timing("corpus", None, 15.0)]
    shown = text(timing_table(stages, {"pipeline": 120.0, "publishing": 45.0}))
    found = re.findall(r"^ *(\S.*?) {2,}(\d*) +(\d+\.\d\d) *$", shown, re.MULTILINE)
    assert found == [
        ("analyse", "2", "1.50"),
        ("corpus", "1", "0.25"),
        ("start-up of stages, DVC", "", "0.25"),
        ("publishing", "", "0.75"),
        ("all", "", "2.75"),
    ]


def test_the_role_table_names_the_leading_head_and_who_holds_the_role() -> None:
    records = study(("nano", "deep"))
    lines = text(role_table(records, follow(records, TrajectoryParams()).role_onsets)).splitlines()
    (deep,) = [line for line in lines if "deep-s0" in line and "induction" in line]
    last = records[1].analyses[-1]
    score = last.roles["induction"].score
    best = int(score.argmax())
    assert f" a{best // 4}.h{best % 4} " in deep
    assert number(float(score.max())) in deep
    assert "no onset" not in deep
    onsets = follow(records, TrajectoryParams()).role_onsets
    unseen = onsets.assign(status="never", reason="the rise is within 9, 3 standard errors")
    lines = text(role_table(records, unseen)).splitlines()
    assert any("deep-s0" in line and "(no onset: the rise is within 9, 3 standard errors)" in line for line in lines)
    assert not any("none (no onset" in line for line in lines)
    assert deep.rstrip().endswith("a5.h2")
    (nano,) = [line for line in lines if "nano-s0" in line and " name mover" in line and "negative" not in line]
    assert nano.rstrip().endswith("none")
    assert " never " in nano
    (unmeasured,) = [line for line in lines if "nano-s0" in line and "S-inhibition" in line]
    assert "not measured: No head copies names." in unmeasured


def test_the_algorithm_table_has_nulls_and_says_why_a_metric_is_undefined() -> None:
    records = study(("nano", "deep"))
    lines = text(algorithm_table(records)).splitlines()
    (direct,) = [line.split() for line in lines if "deep-s0" in line and "B direct" in line]
    metric = records[1].analyses[-1].algorithm
    assert metric is not None
    assert direct[3:5] == [f"{metric.metrics['direct'].value:.0f}", f"{metric.metrics['direct'].null_p95:.0f}"]
    (queries,) = [line for line in lines if "nano-s0" in line and "C queries" in line]
    assert "undefined: No head copies names." in queries
    early = text(algorithm_table(study(("deep",), steps=(0,))))
    assert "B, C, D" in early
    assert early.count("undefined: IOI is not learnt here.") == 1


def test_a_model_that_solves_ioi_without_name_movers_is_named() -> None:
    nano, deep = study(("nano", "deep"))
    (sentence,) = other_algorithms((nano, deep))
    assert sentence.startswith("nano-s0 has learnt IOI, but no head copies names")
    assert list(other_algorithms(study(("nano", "deep"), steps=(0,)))) == [], "not learnt, so not solved in any way"
    last = deep.analyses[-1]
    assert last.algorithm is not None
    direct = dataclasses.replace(last.algorithm.metrics["direct"], null_p95=90.0)
    weak = dataclasses.replace(last.algorithm, metrics=last.algorithm.metrics | {"direct": direct})
    record = dataclasses.replace(deep, analyses=(dataclasses.replace(last, algorithm=weak),))
    (sentence,) = other_algorithms((record,))
    assert "no more than as many heads drawn at random may (90 %)" in sentence


def test_the_check_table_has_a_row_a_found_circuit() -> None:
    records = study(("nano", "deep"))
    lines = text(check_table(records)).splitlines()
    result = records[1].analyses[-1].tasks["greater_than"].verification
    assert result is not None
    checked = dataclasses.replace(
        result,
        numbers={"mlp_share_of_score": 0.5, "mlp_share_of_graph": 0.25, "unknown_role_share_of_heads": math.nan},
    )
    last = records[1].analyses[-1]
    task = dataclasses.replace(last.tasks["greater_than"], verification=checked)
    record = dataclasses.replace(records[1], analyses=(dataclasses.replace(last, tasks={"greater_than": task}),))
    (line,) = [line.split() for line in text(check_table([record])).splitlines() if "deep-s0" in line]
    assert line == ["deep-s0", "greater_than", "50", "25", "-"]
    assert len([line for line in lines if "deep-s0" in line]) == 4


def test_handovers_are_counted_beside_what_chance_would_show() -> None:
    handovers = follow(study(("wide",)), TrajectoryParams()).handovers
    followed = (handovers["successor"] != "").sum()
    sentence = handover_sentence(handovers, 2)
    expected = handovers["expected"].sum()
    assert sentence == (
        f"{len(handovers)} times a head lost a role; {followed} times another gained it within 2 checkpoints "
        f"(at random moments: {expected:.1f})."
    )
    assert 0 < followed < len(handovers)
    assert handover_sentence(handovers.iloc[:0], 2) == "No head that held a role has lost it."


def test_circuits_in_other_models_a_line_a_scale_and_task() -> None:
    several = study(("deep",), STEPS[-4:], ("ioi",), seeds=2)
    shown = text(alikeness_table(alikeness(transfer_table(transfers(several), several))))
    (line,) = [line for line in shown.splitlines() if "deep" in line]
    assert re.search(r"0\.82 \(1.*\) +0\.\d+ \(0\.\d+\) +0\.1.* +0\.6", line)
    alone = study(("deep",), STEPS[-4:], ("ioi",))
    shown = text(alikeness_table(alikeness(transfer_table(transfers(alone), alone))))
    (line,) = [line for line in shown.splitlines() if "deep" in line]
    assert line.split()[-1] == "-", "there is no other seed"


def test_the_claims_table_has_a_line_a_claim_and_says_why() -> None:
    rules = ClaimsParams()
    verdicts_ = dict.fromkeys(texts(rules), "undecided") | {"C1": "supported", "C8": "contradicted"}
    claims = [Claim(name, ALL, verdict, f"reason of {name}", 0.25, -0.5, 1.0) for name, verdict in verdicts_.items()]  # type: ignore[arg-type]
    table = table_of([*claims, Claim("C1", "ioi", "n/a", "a part")], rules)
    for wide, width in ((True, 150), (False, 80)):
        console = Console(file=StringIO(), width=width)
        console.print(claims_table(table, wide=wide))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= width
        for name, verdict in verdicts_.items():
            (line,) = [line for line in lines if line.split()[:1] == [name]]
            assert verdict in line
        assert not any("a part" in line for line in lines)
    first = next(line for line in text(claims_table(table)).splitlines() if line.split()[:1] == ["C1"])
    assert "0.25" in first
    assert "reason of C1" in first
    for shown in (claims_table(table), parts_table(table.assign(about="ioi"))):
        (column,) = [column for column in shown.columns if column.header == "statistic"]
        cells = list(column.cells)
        assert cells[0] == f"0.25 (-0.50 to 1.00): {texts(rules)['C1'].statistic}"
    assert list(parts_table(table).columns[3].cells) == ["-"], "that part has no statistic"
