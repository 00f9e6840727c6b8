"""Two studies at once, a study killed twenty times, a full disk: each ends as an undisturbed study does.

The study is the smallest there is: one dwarf, one task, a few prompts. The first test leaves the undisturbed results
that the others are compared with.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml

from support.clone import Clone, clone_project, eventually, lock, ours
from support.tracked import different, finished_fingerprints, shown

KILLS = 20
KINDS = ("worker", "dvc", "group")
WITH_WORKERS = ("checkpoints", "analyse", "transfer", "tune")
STUDY = "kills"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's"),
]


def smallest(clone: Clone) -> None:
    """Make the clone's own study the smallest: seconds of work in some dozens of pieces."""
    settings = yaml.safe_load((clone.root / "params" / "tiny.yaml").read_text(encoding="utf-8"))
    settings["suite"]["members"] = ["nano-s0"]
    settings["datasets"] |= {"tasks": ["ioi"], "sizes": {"ioi": 6}}
    settings["checkpoints"] |= {"steps": 16, "save_every": 2}
    analyse = settings["analyse"]
    analyse["behaviour"]["resamples"] = 100
    analyse["stability"]["resamples"] = 5
    analyse["algorithm"]["null_draws"] = 100
    settings["tune"]["checkpoints"] = ["nano-s0@last"]
    settings["tune"]["space"] |= {"method": ["eap"], "rule": ["right"], "steps": [2], "threshold": [0.8]}
    settings["trajectory"]["resamples"] = 50
    settings["tracking"]["study"] = STUDY
    (clone.root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone of the project with that study, not yet run: all others are copies of it."""
    clone = clone_project(tmp_path_factory.mktemp("pristine") / "project")
    smallest(clone)
    return clone


def copied(pristine: Clone, root: Path) -> Clone:
    return Clone(Path(shutil.copytree(pristine.root, root)))


def store_of(clone: Clone) -> str:
    return f"sqlite:///{clone.root / 'mlruns' / 'mlflow.db'}"


def results(clone: Clone) -> dict[str, bytes]:
    """Every file of data/ but the weights, which dvc.lock speaks for."""
    data = clone.root / "data"
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.suffix not in (".gitignore", ".safetensors")
    }


def assert_ended_alike(clone: Clone, calm: Clone) -> None:
    """The same hashes, the same files, the same runs in MLflow, each once."""
    assert lock(clone.root) == lock(calm.root)
    assert results(clone) == results(calm)
    runs = shown(store_of(clone), STUDY)
    assert different(runs, shown(store_of(calm), STUDY)) == []
    assert len(runs) >= 6
    assert sum(len(run.files) for run in runs) >= 10
    prints = finished_fingerprints(store_of(clone), STUDY)
    assert len(prints) == len(set(prints)) == len(runs)


@pytest.fixture(scope="module")
def calm(pristine: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """An undisturbed study; it ran while another one did the same in a clone of its own."""
    one, other = (copied(pristine, tmp_path_factory.mktemp(name) / "project") for name in ("one", "other"))
    studies = [clone.start("ontogeny", "study") for clone in (one, other)]
    assert [study.wait(900) for study in studies] == [0, 0], one.log.read_text()[-3000:]
    assert_ended_alike(other, one)
    return one


def test_two_studies_at_once_in_two_clones(calm: Clone) -> None:
    """They share nothing but the machine (the fixture compares them)."""
    assert set(lock(calm.root)) >= {"corpus", "checkpoints", "analyse@nano-s0", "tune@ioi", "trajectory", "figures"}


class Kill(NamedTuple):
    """One of the twenty."""

    kind: str
    at: str
    """The stage at work: `start-up` before there is one, `publishing` after the last."""
    done: int
    """Pieces of work that were finished before."""


def test_killed_twenty_times_it_ends_as_if_undisturbed(
    pristine: Clone, calm: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker, DVC alone, the whole group, in turn, spread evenly over all pieces of work of the study.

    Nothing that was finished is lost by a kill, and no process outlives the study that it belonged to.
    """
    clone, pieces, started = copied(pristine, tmp_path / "project"), done(calm), time.monotonic()
    kills: list[Kill] = []
    study = clone.start("ontogeny", "study")
    for number, kind in enumerate(islice(cycle(KINDS), KILLS)):
        if study.poll() is not None:
            study = clone.start("ontogeny", "study")
        kills.append(kill_at(clone, study, kind, number * pieces // KILLS))
        finished = [one.done for one in kills]
        assert finished == sorted(finished), "a kill lost what was finished"
    assert study.poll() is not None
    with capsys.disabled():
        print(f"\n{report(kills, pieces)}; {time.monotonic() - started:.0f} s")  # noqa: T201
    assert min(Counter(one.kind for one in kills)[kind] for kind in KINDS) >= KILLS // 5
    assert {"checkpoints", "analyse", "publishing"} <= {one.at for one in kills}
    assert "trying again" in clone.log.read_text(), "a killed worker's job is done by another"
    last = clone.run("ontogeny", "study")
    assert last.returncode == 0, last.stderr
    assert_ended_alike(clone, calm)
    assert ": 0 runs added" in clone.run("ontogeny", "publish").stderr


def report(kills: list[Kill], pieces: int) -> str:
    places = ", ".join(f"{one.kind} at {one.at} ({one.done})" for one in kills)
    return f"{len(kills)} kills in a study of {pieces} pieces: {places}"


def kill_at(clone: Clone, study: subprocess.Popen[bytes], kind: str, wanted: int) -> Kill:
    """SIGKILL once so many pieces are finished and there is something of that kind to kill.

    A study survives the loss of a worker; without DVC it ends, and takes everything with it.
    """
    found: list[tuple[psutil.Process | None, Kill]] = []

    def ready() -> bool:
        assert study.poll() is None, f"it ended by itself with {study.returncode}: {clone.log.read_text()[-3000:]}"
        if (finished := done(clone)) >= wanted and (victim := find_victim(clone, study, kind)) is not None:
            process, killed, at = victim
            found.append((process, Kill(killed, at, finished)))
        return bool(found)

    eventually(ready, 300)
    (process, known) = found[0]
    with suppress(psutil.Error, ProcessLookupError):
        if process is not None:
            process.kill()
        else:
            os.killpg(study.pid, signal.SIGKILL)
    if known.kind != "worker":
        study.wait(120)
        eventually(lambda: not ours(clone))
    return known


def find_victim(
    clone: Clone, study: subprocess.Popen[bytes], kind: str
) -> tuple[psutil.Process | None, str, str] | None:
    """Process (none for the whole group), kind and stage of what is to be killed now; none: there is nothing yet.

    Where there is no worker and will not be one, or no DVC any more, the whole group dies.
    """
    with suppress(psutil.Error):
        below = [(process, process.cmdline()) for process in psutil.Process(study.pid).children(recursive=True)]
        stage = next((words[words.index("stage") + 1] for _, words in below if "stage" in words), "")
        workers = [process for process, words in below if any("spawn_main" in word for word in words)]
        dvc = [process for process, words in below if "dvc" in words]
        if not dvc:
            return (None, "group", "publishing") if "figures" in names(clone) else None
        if kind == "dvc":
            return dvc[0], kind, stage or "start-up"
        if kind == "worker" and stage in WITH_WORKERS:
            return (workers[0], kind, stage) if workers else None
        return (None, "group", stage) if stage else None
    return None


def names(clone: Clone) -> set[str]:
    """Stages that DVC has finished."""
    with suppress(OSError, yaml.YAMLError, TypeError, KeyError):
        return set(lock(clone.root))
    return set()


def done(clone: Clone) -> int:
    """Finished pieces of work: stages, checkpoints, results, pictures, runs."""
    cache = clone.root / ".cache"
    kinds = ("training/*/step*", "training/*/done.json", "jobs/*/*.safetensors", "pictures/*/*.zip")
    whole = [path for kind in kinds for path in cache.glob(kind) if not path.name.startswith(".")]
    return len(whole) + len(names(clone)) + finished_runs(clone)


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
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_full_disk_is_said_clearly_and_the_next_run_goes_on(pristine: Clone, calm: Clone, small_disk: Path) -> None:
    """Full in the middle of training, and again when MLflow is to be written."""
    clone, ballast = copied(pristine, small_disk / "project"), small_disk / "ballast"
    study = clone.start("ontogeny", "study")
    eventually(lambda: any((clone.root / ".cache").glob("training/*/step4")), 300)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    eventually(lambda: not ours(clone))
    before = done(clone)
    fill_up(ballast)
    refused = clone.run("ontogeny", "study")
    assert refused.returncode == 2, refused.stderr
    assert "does not fit" in refused.stderr
    full = clone.run("ontogeny", "study", "--anyway")
    assert full.returncode == 1, full.stderr
    assert "ontogeny: the disk is full" in full.stderr
    assert "Traceback" not in full.stderr
    assert not ours(clone)
    assert done(clone) >= before

    ballast.unlink()
    done_again = clone.run("dvc", "repro", "-q")
    assert done_again.returncode == 0, done_again.stderr
    fill_up(ballast)
    full = clone.run("ontogeny", "publish")
    assert "disk is full" in full.stderr, full.stderr
    assert full.returncode in (1, 3)

    ballast.unlink()
    again = clone.run("ontogeny", "study")
    assert again.returncode == 0, again.stderr
    assert_ended_alike(clone, calm)
