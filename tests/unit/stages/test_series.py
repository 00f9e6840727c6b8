"""`ontogeny series`: the published Pythia series, and files that are refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from ontogeny import cli
from ontogeny.core.errors import OntogenyError
from ontogeny.params import TrajectoryParams
from ontogeny.stages.series import Findings, examine, file_names, parse_pairs, rule_params, write_findings
from ontogeny.stages.series_shown import print_findings

PYTHIA = Path(__file__).parents[3].parent / "shared" / "pythia"
PARAMS = TrajectoryParams(resamples=100)
needs_pythia = pytest.mark.skipif(
    not PYTHIA.is_dir(), reason="needs ../shared/pythia beside the repository: published Pythia evaluations"
)


@pytest.fixture(scope="module")
def published() -> Findings:
    return examine(PYTHIA / "evals_zero_shot.csv", PARAMS, columns={}, constants={})


def answers(found: Findings, task: str) -> pd.DataFrame:
    table = found.tables["onsets"]
    return table[table["task"] == task].set_index(["member", "quantity"])


@needs_pythia
def test_sciq_appears_between_5e8_and_1e10_tokens_from_160m_up(published: Findings) -> None:
    rows = answers(published, "sciq")
    large = rows[rows["parameters"] >= 160_000_000]
    assert len(large) == 28  # 14 models, accuracy and normalised accuracy
    assert set(large["status"]) == {"found"}
    for name in ("tokens", "onset_low", "onset_tokens", "onset_high"):
        assert large[name].astype(float).between(5e8, 1e10).all(), name
    assert large["agrees"].all()
    assert (large["onset_low"] < large["onset_high"]).all()


@needs_pythia
@pytest.mark.parametrize("task", ["logiqa", "wsc"])
def test_logiqa_and_wsc_never_appear_in_any_of_the_16_models(published: Findings, task: str) -> None:
    rows = answers(published, task)
    assert rows.index.get_level_values("member").nunique() == 16
    assert set(rows["status"]) == {"never"}
    assert (rows["checkpoints"] == 27).all()


@needs_pythia
def test_winogrande_appears_for_12b_near_5e10_tokens_and_never_for_70m(published: Findings) -> None:
    rows = answers(published, "winogrande")
    largest = rows.loc[("pythia-12b", "acc")]
    assert largest["status"] == "found"
    assert 2.5e10 <= largest["onset_low"] <= largest["onset_tokens"] <= largest["onset_high"] <= 6.5e10
    assert set(rows.loc[["pythia-70m", "pythia-70m-deduped"], "status"]) == {"never"}


@needs_pythia
def test_lambada_is_partly_unlearned_by_the_smallest_model_only(published: Findings) -> None:
    """70m goes from 0.25 back to 0.18; 12b ends at its best."""
    rows = answers(published, "lambada_openai")
    assert rows.loc[("pythia-70m", "acc"), "ending"] == "lower"
    assert rows.loc[("pythia-12b", "acc"), "ending"] == "kept"
    assert rows.loc[("pythia-12b", "acc"), "kept"] > 0.95 > rows.loc[("pythia-70m", "acc"), "kept"]


@needs_pythia
def test_steps_0_and_1_are_alike_and_change_nothing(published: Findings) -> None:
    table = published.read.table
    sciq = table[(table["task"] == "sciq") & (table["member"] == "pythia-12b") & (table["quantity"] == "acc")]
    assert sciq.set_index("step").loc[[0, 1], "value"].nunique() == 1
    from ontogeny.series import emergences

    (with_both,), (without,) = (emergences(part, PARAMS) for part in (sciq, sciq[sciq["step"] != 1]))
    assert with_both.onset.step == without.onset.step == 1000


@needs_pythia
def test_plain_rule_of_the_papers_code_finds_step_0(published: Findings) -> None:
    """METHODS 6.6: for all 16 models on 6 of 8 tasks; lambada starts at 0, and WSC where it likes."""
    plain = examine(PYTHIA / "evals_zero_shot.csv", rule_params("cot_33"), columns={}, constants={})
    table = plain.tables["onsets"]
    first = table[table["status"] == "before the first checkpoint"].groupby("task")["member"].nunique()
    assert (first == 16).sum() >= 6
    assert "lambada_openai" not in first.index
    assert "before the first checkpoint" not in set(published.tables["onsets"]["status"])


@needs_pythia
def test_sizes_of_the_published_ioi_circuits(tmp_path: Path) -> None:
    """The two levels of the picture: near 200 edges until about 1e11 tokens, near 900 after 1.8e11."""
    found = examine(
        PYTHIA / "ioi_edges_410m.csv",
        PARAMS,
        columns={"step": "checkpoint", "value": "num_edges"},
        constants={"model": "pythia-410m", "task": "ioi", "metric": "edges"},
    )
    edges = pd.read_csv(PYTHIA / "ioi_edges_410m.csv")["num_edges"]
    (row,) = found.tables["fluctuation"].to_dict("records")
    assert row["variation"] == pytest.approx(edges.std() / edges.mean())
    assert row["low"] < row["variation"] < row["high"]
    changes = found.tables["changes"]
    assert changes["before"].iloc[0] < 300 < 800 < changes["after"].iloc[-1]
    assert (changes["low"] < changes["high"]).all()
    assert "onsets" not in found.tables

    written = {path.name for path in write_findings(found, tmp_path)}
    assert written == {"fluctuation.csv", "changes.csv", "series.json", "sizes-pythia.png", "sizes-pythia.svg"}


def small(folder: Path) -> Path:
    """Two models, one of which learns; a NaN and a repeated row."""
    rng, rows = np.random.default_rng(0), []
    for model, top in (("net-1m", 0.0), ("net-8m", 0.8)):
        for step in range(12):
            value = 0.1 + top * (step >= 6) + rng.normal(0, 0.005)
            rows.append((model, step, 1000 * 2**step, "sums", "acc", value, 0.01))
    rows += [rows[-1], ("net-1m", 12, 1000 * 2**12, "sums", "acc", math.nan, math.nan)]
    frame = pd.DataFrame(rows, columns=["model", "step", "tokens", "task", "metric", "value", "stderr"])
    frame.to_csv(folder / "small.csv", index=False)
    return folder / "small.csv"


def test_what_is_written_is_the_same_every_time_and_says_what_was_counted(tmp_path: Path) -> None:
    found = examine(small(tmp_path), PARAMS, columns={}, constants={})
    first, second = (write_findings(found, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert {"onsets.csv", "differences.csv", "trend.csv", "onsets-net.png"} <= {path.name for path in first}
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second))
    said = json.loads((tmp_path / "a" / "series.json").read_text())
    assert said["counts"] == {"rows": 26, "repeated": 1, "missing": 1, "nan": 1}
    assert [row["status"] for row in said["onsets"]] == ["never", "found"]
    assert [row["left_out"] for row in said["onsets"]] == [1, 0]
    assert said["onsets"][0]["onset_low"] is None
    assert 32_000 < said["onsets"][1]["onset_low"] < said["onsets"][1]["onset_high"] < 64_000


def test_command_prints_tables_and_refuses_wrong_files(tmp_path: Path) -> None:
    file = small(tmp_path)

    def ontogeny(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ontogeny", "series", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = ontogeny(str(file))
    assert done.returncode == 0, done.stderr
    assert "net-8m" in done.stdout
    assert "26 rows, 1 repeated, 1 missing" in done.stdout
    assert (tmp_path / "series-small" / "onsets.csv").exists()
    refused = ontogeny(str(file), "--map", "value=accuracy", "--out", "nowhere")
    assert refused.returncode == 2
    assert "there is no column 'accuracy'; the file has model, step, tokens" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "nowhere").exists()


def test_files_and_options_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "empty.csv").write_text("")
    for name in ("nowhere.csv", "binary.csv", "empty.csv"):
        with pytest.raises(OntogenyError, match=name):
            examine(tmp_path / name, PARAMS, columns={}, constants={})
    with pytest.raises(OntogenyError, match="expected NAME=VALUE"):
        parse_pairs(["step"], "--map")
    with pytest.raises(OntogenyError, match="'a' is given twice"):
        parse_pairs(["a=b,a=c"], "--set")
    assert parse_pairs(["a=b, c=d", "e=f"], "--set") == {"a": "b", "c": "d", "e": "f"}
    with pytest.raises(OntogenyError, match="expected base_33 or cot_33"):
        rule_params("half")


STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000)
HEADER = "model,step,task,metric,value,stderr"


def learned(model: str = "pythia-70m", task: str = "sums") -> list[str]:
    """Lines of a model that learns at step 1000."""
    return [f"{model},{step},{task},acc,{0.2 + 0.5 * (step >= 1000)},0.01" for step in STEPS]


class Said(NamedTuple):
    """What the command left."""

    code: int
    text: str
    errors: str
    written: set[str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`ontogeny series` of a file with this content, in a folder of its own."""

    def series(content: str | bytes | Sequence[str], *arguments: str, out: str = "out") -> Said:
        text = content if isinstance(content, str | bytes) else "\n".join([HEADER, *content, ""])
        (tmp_path / "given.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(cli, "_start_logging", lambda _: None)
        monkeypatch.setattr(cli, "_quiet_telemetry", lambda: None)
        monkeypatch.setattr(sys, "argv", ["ontogeny", "series", "given.csv", "--out", out, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
        return Said(int(str(ended.value.code or 0)), *capsys.readouterr(), written - {"given.csv"})

    return series


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("EleutherAI/pythia-70m", "EleutherAI-pythia"),
        ("../../../pythia-70m", "pythia"),
        ("x" * 300 + "-70m", "x" * 40),
        ("pythia-70m[/x]", "pythia-x"),
        ("..", "models"),
        ("a$\\frac{-x$", "models"),
    ],
)
def test_any_name_can_be_a_models(run: Callable[..., Said], model: str, file: str) -> None:
    said = run(learned(model) + learned(model, "price$ and $_{[red]:cat:"), "--tokens-per-step", "1000")
    assert said.code == 0
    assert said.written == {
        f"out/{name}"
        for name in (
            "onsets.csv",
            "series.json",
            *(f"{k}-{file}.{t}" for k in ("series", "onsets") for t in ("png", "svg")),
        )
    }
    assert f"onsets-{file}.png" in said.text
    assert model in said.text or len(model) > 200
    assert "price$ and $_{[red]:cat:" in said.text
    assert "price$ and $ {[red]:cat:" in Path(f"out/onsets-{file}.svg").read_text()


def test_files_of_two_suites_never_have_one_name() -> None:
    names = file_names(["a/b", "a b", "A-B", "a-b-2", "", "???", "x" * 50, "x" * 60])
    assert list(names.values()) == ["a-b", "a-b-2", "A-B-3", "a-b-2-2", "models", "models-2", "x" * 40, "x" * 40 + "-2"]
    assert len({name.casefold() for name in names.values()}) == len(names)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["pythia-70m,4000,ioi,edges,74,,0.5"] * 3, "given.csv has rows of more fields than its header"),
        (["m,0,ioi,edges,74,", "m,1,ioi,edges,74,,0.5"], "given.csv cannot be read as CSV (Error tokenizing data. C "
         "error: Expected 6 fields in line 3, saw 7)"),
        (HEADER.replace(",", ";") + "\nm;1;t;acc;0,5;0,1\n", "given.csv: its columns are separated by semicolons; "
         "expected commas."),
        (HEADER.replace(",", "\t") + "\nm\t1\tt\tacc\t1\t1\n", "its columns are separated by tabs"),
        (HEADER.upper() + "\nm,1,t,acc,1,1\n", "Rename with --map model=MODEL,step=STEP,task=TASK,metric=METRIC,"
         "value=VALUE,stderr=STDERR (case counts)"),
        (f"{HEADER}\npythia-é,1,t,acc,1,1\n".encode("latin-1"), "given.csv is not UTF-8"),
        ([*learned()[:2], "", "", "pythia-70m,x,sums,acc,1,1"], "Line 6: column step holds text"),
        ([*learned(), "pythia-70m,1e30,sums,acc,1,1"], "Line 19: column step holds no whole number; expected 0, 1, 2"),
        ([*learned(), "pythia-70m,64000,sums,acc,1,inf"], "Line 19: a standard error is negative or beyond 1e+100"),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_nothing_behind(run: Callable[..., Said], content: Any, said: str) -> None:
    refused = run(content)
    assert (refused.code, refused.text, refused.written) == (2, "", set())
    assert said in refused.errors


def test_an_empty_field_at_the_end_and_blanks_after_commas_change_nothing(run: Callable[..., Said]) -> None:
    run(learned())
    plain = pd.read_csv("out/onsets.csv")
    for content in ([f"{line}," for line in learned()], "\n".join([HEADER, *learned()]).replace(",", ", ")):
        assert run(content).code == 0
        pd.testing.assert_frame_equal(pd.read_csv("out/onsets.csv"), plain)
    assert plain["step"].tolist() == [1000]


@pytest.mark.parametrize("out", ["given.csv", "given.csv/found", "x" * 300])
def test_a_folder_that_cannot_be_is_refused_first(run: Callable[..., Said], out: str) -> None:
    refused = run(learned(), out=out)
    assert (refused.code, refused.written) == (2, set())
    assert f"--out {out}: " in refused.errors
    assert "expected a new or an existing folder" in refused.errors


def test_models_of_unknown_size_have_no_number_in_the_legend(run: Callable[..., Said]) -> None:
    assert run(learned("_x-pythia") + learned("_y$\\frac{-pythia$")).code == 0
    drawn = Path("out/series-models.svg").read_text()
    assert ">_x-pythia<" in drawn
    assert ">_y$\\frac{-pythia$<" in drawn
    run(learned("pythia-70m") + learned("pythia-160m"))
    assert ">160m (160M)<" in Path("out/series-pythia.svg").read_text()


def lines_of(found: Findings, capsys: pytest.CaptureFixture[str], width: int) -> list[str]:
    print_findings(found, [], width)
    return capsys.readouterr().out.splitlines()


def test_terminal_says_why_there_is_no_onset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = [f"pythia-1b,{step},sums,acc,0.25,0.01" for step in STEPS]
    empty = [f"pythia-12b,{step},sums,acc,not_learned,0.01" for step in STEPS]
    rows = [*empty, *learned()[-1:], *flat, *learned("pythia-160m")]
    (tmp_path / "given.csv").write_text("\n".join([HEADER, *rows]))
    found = examine(tmp_path / "given.csv", PARAMS, columns={}, constants={})
    marked = found.tables["onsets"]["member"] == "pythia-160m"
    found.tables["onsets"].loc[marked, "agrees"] = False
    text = " ".join(" ".join(lines_of(found, capsys, 400)).split())
    single, learnt, level, none = (text.index(f" pythia-{size} sums") for size in ("70m", "160m", "1b", "12b"))
    assert single < learnt < level < none  # by size
    assert "a single checkpoint shows no" in text[single:learnt]
    assert "e+09, apart from" in text[learnt:level]
    assert "the rise of 0 is within" in text[level:none]
    assert "no checkpoint has a value" in text[none:]
    assert "0 of 17" in text[none:]


def test_sizes_without_fluctuation_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "given.csv").write_text(f"{HEADER}\npythia-1b,1,ioi,edges,5,\n")
    found = examine(tmp_path / "given.csv", PARAMS, columns={}, constants={})
    text = "\n".join(lines_of(found, capsys, 120))
    assert "fewer than 10 sizes" in text
    assert "- to -" not in text


@needs_pythia
def test_a_narrow_terminal_shows_fewer_columns_and_says_which(
    published: Findings, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, narrow = (lines_of(published, capsys, width) for width in (200, 80))
    assert max(map(len, narrow)) <= 80
    assert not any("Not shown" in line for line in wide)
    assert any(
        line.startswith("Not shown, for want of width: dip, plateau, end, used, median (all ") for line in narrow
    )
    shown = [line for line in narrow if line.startswith(" pythia-12b ") and " found " in line]
    assert any("23,000" in line for line in shown)  # numbers are whole
    apart = (~published.tables["onsets"]["agrees"].fillna(True)).sum()
    assert "\n".join(wide).count("apart from") == apart > 0
