"""Trajectories, claims and all figures of a study as large as Pythia's: wall seconds and memory on this machine.

Six members of the size of pythia-160m's graph (32,347 edges), 154 checkpoints, four tasks, made-up records; what
resampling said of each circuit is read from them. The stages `trajectory` and `figures` run as DVC runs them, in
processes of their own; then once more with nothing changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from rich.console import Console
from rich.table import Table

from ontogeny.core.graph import GraphSpec
from ontogeny.records import MemberRecord, write_member, write_transfer
from ontogeny.stages.study import Study, open_study
from support import synthetic_study
from support.synthetic_transfers import transfers

TESTS = Path(__file__).parents[1]
GRAPH = GraphSpec(12, 12)
MEMBERS = (("nano", 0), ("small", 0), ("wide", 0), ("wide", 1), ("deep", 0), ("deep", 1))
STEPS = (0, *(2**k for k in range(10)), *range(1000, 144_000, 1000))
ANCHORS = 8
LIMIT_S, LIMIT_GB = 180.0, 4.0


class Took(NamedTuple):
    """A process and its children."""

    seconds: float
    cpu: float
    """Seconds of the CPU: what the work costs on a machine that is busy."""
    gigabytes: float
    """Largest sum of the proportional set sizes."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=len(STEPS), help="of each member (default 154)")
    parser.add_argument("--members", type=int, default=len(MEMBERS), help="how many (default 6)")
    parser.add_argument("--keep", type=Path, help="make the study in this folder and keep it; if it is there, use it")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = wanted.keep or Path(scratch)
        if not (folder / "params.yaml").exists():
            make(folder, MEMBERS[: wanted.members], _thinned(wanted.checkpoints))
        table = Table("stage", "seconds", "of the CPU", "GB", title=_title(wanted.members, wanted.checkpoints))
        stages = {name: run(folder, name) for name in ("trajectory", "figures")}
        for name, took in stages.items():
            table.add_row(name, *_cells(took))
        seconds, cpu, memory = zip(*stages.values())
        both = Took(sum(seconds), sum(cpu), max(memory))
        full = wanted.checkpoints == len(STEPS) and wanted.members == len(MEMBERS)
        verdict = "-" if not full else "ok" if both.seconds <= LIMIT_S and both.gigabytes <= LIMIT_GB else "over"
        table.add_row(f"both (limit {LIMIT_S:.0f} s on 2 cores, {LIMIT_GB:.0f} GB): {verdict}", *_cells(both))
        again = {name: run(folder, name) for name in stages}
        for name, took in again.items():
            table.add_row(f"{name}, nothing changed", *_cells(took))
        Console(width=110).print(table)


def make(folder: Path, members: tuple[tuple[str, int], ...], steps: tuple[int, ...]) -> Study:
    """Records on disk, as the stages before `trajectory` leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TESTS.parent / "dvc.yaml", folder / "dvc.yaml")
    settings = yaml.safe_load((TESTS.parent / "params.yaml").read_text(encoding="utf-8"))
    scale = settings["checkpoints"]["scales"]["small"]
    names = [f"{scale}-s{seed}" for scale, seed in members]
    settings["checkpoints"]["scales"] = {scale_: scale for scale_, _ in members}
    settings["suite"]["members"] = names
    settings["tune"]["checkpoints"] = [f"{name}@last" for name in names]
    for name, facts in synthetic_study.SCALES.items():
        synthetic_study.SCALES[name] = dataclasses.replace(facts, graph=GRAPH)
    few = []
    for scale_, seed in members:
        record = synthetic_study.member(scale_, steps, seed=seed)
        few.append(_at_anchors(record))
        (folder / "data" / "failures").mkdir(parents=True, exist_ok=True)
        write_member(folder / "data" / "analyses" / record.member, record)
    for each in transfers(few, [analysis.ref.step for analysis in few[0].analyses]):
        write_transfer(folder / "data" / "transfer" / each.member, each)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return open_study(folder)


def run(folder: Path, stage: str) -> Took:
    """One stage in a process of its own, watched."""
    started, most = time.perf_counter(), 0.0
    before = _cpu()
    process = subprocess.Popen([sys.executable, "-m", "ontogeny", "stage", stage], cwd=folder)
    while process.poll() is None:
        most = max(most, _gigabytes(process.pid))
        time.sleep(2.0)  # reading smaps costs the process under test
    assert process.returncode == 0
    return Took(time.perf_counter() - started, _cpu() - before, most)


def _cpu() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _at_anchors(record: MemberRecord) -> MemberRecord:
    learnt = [analysis for analysis in record.analyses if analysis.ref.step > 0]
    places = [round(place * (len(learnt) - 1) / (ANCHORS - 1)) for place in range(ANCHORS)]
    return dataclasses.replace(record, analyses=tuple(learnt[place] for place in sorted(set(places))))


def _thinned(count: int) -> tuple[int, ...]:
    places = {round(place * (len(STEPS) - 1) / max(1, count - 1)) for place in range(count)}
    return tuple(STEPS[place] for place in sorted(places))


def _gigabytes(process: int) -> float:
    """Of a process and those that descend from it."""
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += int(text.split("Pss:")[1].split()[0])
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, IndexError):
            continue
    return total * 1024 / 1e9


def _cells(took: Took) -> tuple[str, str, str]:
    return f"{took.seconds:.1f}", f"{took.cpu:.1f}", f"{took.gigabytes:.2f}"


def _title(members: int, checkpoints: int) -> str:
    return f"{members} members x {checkpoints} checkpoints x 4 tasks, {GRAPH.n_edges:,} edges"


if __name__ == "__main__":
    main()
