"""What kills leave of DVC's own files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ontogeny.stages.mend import mend


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "dvc.lock"


@pytest.fixture
def readers(tmp_path: Path) -> Path:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    "left", ["", "schema: '2.0'\n", "schema: '2.0'\nstages:\n", "stages: {a: {cmd: 'x", "stages:\n\ta:"]
)
def test_half_a_lock_is_removed_and_a_whole_one_kept(lock: Path, left: str) -> None:
    mend(lock.parent)
    lock.write_text("schema: '2.0'\nstages:\n  corpus:\n    cmd: x\n")
    mend(lock.parent)
    assert lock.exists()
    lock.write_text(left)
    mend(lock.parent)
    assert not lock.exists()


@pytest.fixture
def dvc() -> Iterator[int]:
    """Process id of something that is called dvc."""
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_dead_readers_and_strangers_are_forgotten(tmp_path: Path, readers: Path, dvc: int) -> None:
    """DVC itself would take a stranger that has the process id of a killed DVC for that DVC, and wait for it."""
    alive, stranger, dead = ({"pid": pid, "cmd": "dvc repro"} for pid in (dvc, os.getpid(), 2**30))
    listed = {"write": {"/a": stranger, "/b": alive, "/c": dead}, "read": {"/d": [dead, alive], "/e": [stranger]}}
    readers.write_text(json.dumps(listed))
    mend(tmp_path)
    assert json.loads(readers.read_text()) == {"write": {"/b": alive}, "read": {"/d": [alive]}}


@pytest.mark.parametrize("left", ["", '{"write": {"/a": ', "[]", '{"write": {"/a": 3}, "read": {}}'])
def test_half_a_list_is_removed(tmp_path: Path, readers: Path, left: str) -> None:
    readers.write_text(left)
    mend(tmp_path)
    assert not readers.exists()


def test_dvc_itself_refuses_half_a_list_and_works_once_it_is_mended(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    run("init", "--no-scm", "-q")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: echo done\n    params: [a]\n")
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text('{"write"')
    assert "corrupted" in run("repro").stderr
    mend(tmp_path)
    assert run("repro").returncode == 0
