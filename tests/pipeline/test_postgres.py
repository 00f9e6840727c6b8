"""Publishing to `mlflow server` with PostgreSQL behind it and files served by it: several publishers, and kills."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ontogeny.params import TrajectoryParams
from ontogeny.series import follow
from ontogeny.tracking import Projection, Store, open_store, publish
from support.server import Server, lacks_postgres, postgres, served
from support.synthetic_study import member
from support.tracked import active_runs, different, finished_fingerprints, shown

TESTS = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacks_postgres()), reason=lacks_postgres() or "PostgreSQL is here"),
]
HISTORIES = ("tokens", "behaviour/held_out/metric", "curve/raw")


def projection(study: str, setting: str = "m=5") -> Projection:
    """Eight runs: three checkpoints of two tasks, and their two trajectories."""
    record = member("deep", (0, 512, 1722), ("ioi", "sva"), setting=setting)
    return Projection(
        records=[record],
        trajectory=follow([record], TrajectoryParams()),
        study=study,
        settings={"analyse": {"search": {"threshold": 0.8}}},
        now=1_760_000_000.0,
        finished_at=lambda _: 1_750_000_000.0,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgres() as database, served(database, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def calm(tmp_path: Path) -> Store:
    """A SQLite file of its own, for what an undisturbed publish shows."""
    return open_store(tmp_path / "calm")


_PUBLISHER = """
import sys, uuid
from test_postgres import projection
from ontogeny.tracking import Store, publish
machine, study, uri = int(sys.argv[1]), sys.argv[2], sys.argv[3]
uuid.getnode = lambda: machine
plan = projection(study)
print("ready", flush=True)
sys.stdin.readline()
report = publish(plan, Store(uri))
print(report.added, report.kept, report.unpublished, report.reason, flush=True)
"""


def start(machine: int, study: str, server: Server, lock_folder: Path) -> subprocess.Popen[str]:
    """A publisher that waits for a line on its standard input."""
    lock_folder.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "pipeline")]), "TMPDIR": str(lock_folder),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, str(machine), study, server.store.uri], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_machines_that_publish_at_once_end_with_each_run_once(server: Server, tmp_path: Path, calm: Store) -> None:
    """Three that share no lock and bear other names, started together; what they wrote doubly is swept."""
    publishers = [start(number, "crowd", server, tmp_path / str(number)) for number in (1, 2, 3)]
    for publisher in publishers:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "ready\n"
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    reports = [publisher.communicate(timeout=300)[0].split() for publisher in publishers]
    assert all(report[2:] == ["0"] for report in reports), reports
    assert sum(int(report[0]) for report in reports) >= 8

    plan = projection("crowd")
    wanted = sorted(run.fingerprint for run in plan.runs())
    last = publish(plan, server.store)
    assert (last.added, last.kept, last.complete) == (0, 8, True)
    assert finished_fingerprints(server.store.uri, "crowd") == wanted
    assert len([e for e in MlflowClient(server.store.uri).search_experiments() if e.name.startswith("crowd/")]) == 2

    publish(plan, calm)
    theirs = shown(server.store.uri, "crowd", history_of=HISTORIES.__contains__)
    assert different(theirs, shown(calm.uri, "crowd", history_of=HISTORIES.__contains__)) == []
    assert sum(len(run.files) for run in theirs) >= 8, "the server has the files"


def test_a_server_killed_in_the_middle_and_restarted_has_each_run_once(
    server: Server, tmp_path: Path, calm: Store
) -> None:
    publisher = start(7, "killed", server, tmp_path / "lock")
    assert publisher.stdin is not None
    publisher.stdin.write("go\n")
    publisher.stdin.flush()
    eventually(lambda: len(active_runs(server.store.uri, "killed")) >= 3)
    server.kill()
    added, kept, unpublished, *reason = publisher.communicate(timeout=300)[0].removeprefix("ready\n").split()
    assert (int(added) >= 1, kept, int(unpublished) >= 1) == (True, "0", True)
    assert reason

    server.start()
    before = Counter(run.info.status for _, run in active_runs(server.store.uri, "killed"))
    assert before["FINISHED"] in (int(added), int(added) + 1), "the last answer may have been lost"
    later = start(7, "killed", server, tmp_path / "lock-2")
    report = later.communicate("go\n", timeout=300)[0].split()
    assert report[1:] == [str(8 - before["FINISHED"]), str(before["FINISHED"]), "0"]
    assert finished_fingerprints(server.store.uri, "killed") == sorted(r.fingerprint for r in projection("x").runs())

    publish(projection("killed"), calm)
    theirs = shown(server.store.uri, "killed", history_of=HISTORIES.__contains__)
    assert different(theirs, shown(calm.uri, "killed", history_of=HISTORIES.__contains__)) == []


def eventually(condition: object, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
