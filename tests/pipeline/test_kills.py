"""A study killed twenty times, two studies at once, a full disk: the end is that of an undisturbed run.

The study is the smallest there is: one dwarf, two tasks, a few prompts. The tests build on each other, in the order of
this file: the first leaves the undisturbed results that the others are compared with.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml

from support.clone import Clone, clone_project, eventually, lock, ours
from support.tracked import different, finished_fingerprints, shown

KILLS = 20
MEMBER = "nano-s0"
STUDY = "kills"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's"),
]


def smallest(clone: Clone) -> None:
    """Make the clone's own study the smallest: seconds of work in some dozens of jobs."""
    settings = yaml.safe_load((clone.root / "params" / "tiny.yaml").read_text(encoding="utf-8"))
    settings["suite"]["members"] = [MEMBER]
    settings["datasets"] |= {"tasks": ["ioi", "sva"], "sizes": {"ioi": 6, "sva": 6}}
    settings["checkpoints"] |= {"steps": 8, "save_every": 2}
    analyse = settings["analyse"]
    analyse["behaviour"]["resamples"] = 100
    analyse["baselines"]["random_draws"] = 20
    analyse["stability"]["resamples"] = 5
    analyse["algorithm"]["null_draws"] = 100
    settings["tune"]["checkpoints"] = [f"{MEMBER}@last"]
    settings["tune"]["space"] |= {"method": ["eap"], "rule": ["right"], "steps": [2], "threshold": [0.8]}
    settings["trajectory"]["resamples"] = 50
    settings["tracking"]["study"] = STUDY
    (clone.root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def store_of(clone: Clone) -> str:
    return f"sqlite:///{clone.root / 'mlruns' / 'mlflow.db'}"


class Pair(NamedTuple):
    """Two clones of the project with the same settings."""

    one: Clone
    other: Clone


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    clones = Pair(*(clone_project(tmp_path_factory.mktemp(name) / "project") for name in Pair._fields))
    for clone in clones:
        smallest(clone)
    return clones


def results(clone: Clone) -> dict[str, bytes]:
    """Every file of data/ but the weights, which dvc.lock speaks for."""
    data = clone.root / "data"
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.suffix not in (".gitignore", ".safetensors")
    }


def test_two_studies_at_once_in_two_clones(pair: Pair) -> None:
    """They share nothing but the machine: both finish, with the same hashes and the same runs."""
    studies = [clone.start("ontogeny", "study") for clone in pair]
    assert [study.wait(900) for study in studies] == [0, 0], pair.one.log.read_text()[-3000:]
    assert lock(pair.one.root) == lock(pair.other.root)
    assert results(pair.one) == results(pair.other)
    found = [shown(store_of(clone), STUDY) for clone in pair]
    assert different(*found) == []
    assert len(found[0]) > 6
    assert sum(len(run.files) for run in found[0]) > 0


def test_killed_twenty_times_it_ends_as_if_undisturbed(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC alone, a worker, the whole group, each between start-up and the end of the next job.

    Nothing that was finished is lost by a kill, and no process outlives it.
    """
    clone, calm = clone_project(tmp_path / "project"), pair.one
    smallest(clone)
    killed: Counter[str] = Counter()
    choice, kinds = random.Random(0), cycle(("group", "worker", "dvc"))
    study, best, started = None, 0, time.monotonic()
    while sum(killed.values()) < KILLS:
        before = done(clone)
        assert before >= best, "a kill lost what was finished"
        if study is None or study.poll() is not None:
            assert study is None or study.returncode != 0, f"it finished after {sum(killed.values())} kills"
            study = clone.start("ontogeny", "study")
        # Half of the kills come as soon as there is something to kill, half when the next job has ended.
        victim = await_victim(clone, study, next(kinds), before + choice.randrange(2))
        best = before
        if victim is None:
            continue
        kill(clone, study, victim)
        killed[victim.kind] += 1
    assert min(killed[kind] for kind in ("group", "worker", "dvc")) >= KILLS // 5, killed
    if study is not None and study.poll() is None:
        study.wait(900)
    last = clone.run("ontogeny", "study")
    assert last.returncode == 0, last.stderr
    with capsys.disabled():
        print(f"\n{dict(killed)} in {time.monotonic() - started:.0f} s")  # noqa: T201

    assert lock(clone.root) == lock(calm.root)
    assert results(clone) == results(calm)
    assert different(shown(store_of(clone), STUDY), shown(store_of(calm), STUDY)) == []
    again = clone.run("ontogeny", "publish")
    assert ": 0 runs added" in again.stderr


class Victim(NamedTuple):
    """Whom to kill."""

    kind: str
    process: psutil.Process | None
    """None for the whole group."""


def await_victim(clone: Clone, study: subprocess.Popen[bytes], kind: str, wanted: int) -> Victim | None:
    """The victim once there is one and `wanted` pieces of work are done; none if the study ends before.

    Where a stage without workers is at work the whole group dies in a worker's place.
    """
    found: list[Victim] = []

    def ready() -> bool:
        if study.poll() is not None:
            return True
        if done(clone) < wanted:
            return False
        if (victim := find_victim(study, kind)) is not None:
            found.append(victim)
        return bool(found)

    eventually(ready, 300)
    return found[0] if found else None


def find_victim(study: subprocess.Popen[bytes], kind: str) -> Victim | None:
    """The process of a kind below a running study; none as long as it has not started up."""
    with suppress(psutil.Error):
        below = psutil.Process(study.pid).children(recursive=True)
        by_kind = {"dvc": [p for p in below if "dvc" in p.cmdline()],
                   "worker": [p for p in below if any("spawn_main" in word for word in p.cmdline())]}  # fmt: skip
        stages = [p for p in below if "stage" in p.cmdline()]
        if by_kind.get(kind):
            return Victim(kind, by_kind[kind][-1])
        if stages or by_kind["worker"]:
            return Victim("group", None)
    return None


def kill(clone: Clone, study: subprocess.Popen[bytes], victim: Victim) -> None:
    """SIGKILL. A study survives the loss of a worker; without DVC it ends, and takes everything with it."""
    with suppress(psutil.Error, ProcessLookupError):
        if victim.process is not None:
            victim.process.kill()
        else:
            os.killpg(study.pid, signal.SIGKILL)
    if victim.kind != "worker":
        study.wait(120)
        eventually(lambda: not ours(clone))


def done(clone: Clone) -> int:
    """Finished pieces of work: checkpoints, jobs, pictures, runs."""
    cache = clone.root / ".cache"
    files = [*cache.glob("training/*/step*"), *cache.glob("training/*/done.json"), *cache.glob("jobs/*/*.safetensors"),
             *cache.glob("pictures/*/*.zip")]  # fmt: skip
    whole = [path for path in files if not path.name.startswith(".")]
    return len(whole) + finished_runs(clone)


def finished_runs(clone: Clone) -> int:
    """In the clone's store, which a publisher may be writing to."""
    database = clone.root / "mlruns" / "mlflow.db"
    if not database.exists():
        return 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        question = "select count(*) from runs where status = 'FINISHED' and lifecycle_stage = 'active'"
        return int(connection.execute(question).fetchone()[0])
    return 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 MiB in memory."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill_up(ballast: Path) -> None:
    """Write until it fails."""
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


def test_a_full_disk_is_said_clearly_and_the_next_run_goes_on(pair: Pair, small_disk: Path) -> None:
    clone = clone_project(small_disk / "project")
    smallest(clone)
    study = clone.start("ontogeny", "study")
    eventually(lambda: any((clone.root / ".cache").glob("training/*/step4")), 300)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    eventually(lambda: not ours(clone))
    before = done(clone)
    with pytest.raises(OSError, match="No space left"):
        fill_up(small_disk / "ballast")
    full = clone.run("ontogeny", "study")
    assert full.returncode == 1, full.stderr
    assert "the disk is full" in full.stderr
    assert not ours(clone)
    assert done(clone) >= before

    (small_disk / "ballast").unlink()
    again = clone.run("ontogeny", "study")
    assert again.returncode == 0, again.stderr
    assert lock(clone.root) == lock(pair.one.root)
    assert different(shown(store_of(clone), STUDY), shown(store_of(pair.one), STUDY)) == []
    assert len(finished_fingerprints(store_of(clone), STUDY)) == len(set(finished_fingerprints(store_of(clone), STUDY)))
