"""Fingerprints, the job cache, and where a study keeps its things."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ontogeny.core.results import Estimate
from ontogeny.execution.cache import JobCache
from ontogeny.execution.fingerprints import fingerprint
from ontogeny.execution.places import places_at


def test_a_fingerprint_is_the_same_in_every_process_and_for_every_order() -> None:
    code = (
        "from ontogeny.execution.fingerprints import fingerprint; print(fingerprint(b=[1, 2], a={'y': 0.5, 'x': None}))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == fingerprint(a={"x": None, "y": 0.5}, b=[1, 2])
    assert len(there) == 32
    assert there != fingerprint(a={"x": None, "y": 0.25}, b=[1, 2])


def test_the_cache_gives_back_what_was_stored(tmp_path: Path) -> None:
    cache = JobCache(tmp_path)
    assert cache.load(Estimate, "abc") is None
    assert cache.finished_at("abc") is None
    before = time.time()
    cache.store("abc", Estimate(0.5, -1.0, float("nan")))
    back = cache.load(Estimate, "abc")
    assert back is not None
    assert (back.value, back.low) == (0.5, -1.0)
    assert back.high != back.high
    finished = cache.finished_at("abc")
    assert finished is not None
    assert before <= finished <= time.time()


def test_a_damaged_entry_counts_as_not_finished(tmp_path: Path) -> None:
    cache = JobCache(tmp_path)
    cache.store("abc", Estimate(0.5, 0.0, 1.0))
    path = cache.path("abc")
    path.write_bytes(path.read_bytes()[:20])
    assert cache.load(Estimate, "abc") is None
    assert "abc" not in cache


def test_tensors_survive(tmp_path: Path) -> None:
    cache = JobCache(tmp_path)
    values = torch.arange(6.0).view(2, 3) > 2
    cache.store("abc", (values, values.float()))
    back = cache.load(tuple[torch.Tensor, torch.Tensor], "abc")
    assert back is not None
    assert torch.equal(back[0], values)
    assert torch.equal(back[1], values.float())


@pytest.mark.parametrize(("at", "project"), [("work", "work"), ("work/.cache/studies/quick", "work")])
def test_a_profile_shares_the_projects_cache(tmp_path: Path, at: str, project: str) -> None:
    (tmp_path / at).mkdir(parents=True)
    places = places_at(tmp_path / at)
    assert places.study == tmp_path / at
    assert places.project == tmp_path / project
    assert places.jobs == tmp_path / project / ".cache" / "jobs"
    assert places.is_profile == (at != project)
    assert places.profile("quick") == places_at(tmp_path / "work" / ".cache" / "studies" / "quick")
