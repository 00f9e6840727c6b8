"""Schedules by name: Pythia's are those of the papers; others scale with the training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ontogeny.core.errors import OntogenyError
from ontogeny.core.schedule import ANALYSES, PYTHIA_STEPS, SPARSE_STEPS, coverage, scheduled

OLMO = tuple(range(1000, 738_001, 1000))
STEPS = st.lists(st.integers(0, 200_000), min_size=1, max_size=60, unique=True)


def test_pythia_has_154_checkpoints_and_the_published_sparse_schedule() -> None:
    assert len(PYTHIA_STEPS) == 154
    assert scheduled("all", PYTHIA_STEPS, "pythia") == PYTHIA_STEPS
    assert scheduled("sparse", PYTHIA_STEPS, "pythia") == SPARSE_STEPS
    assert len(SPARSE_STEPS) == 28
    third = scheduled("third", PYTHIA_STEPS, "pythia")
    assert len(third) == 52
    assert third[-1] == 143_000
    log = scheduled("log", PYTHIA_STEPS, "pythia")
    powers = (0, *(2**i for i in range(10)))
    assert log == (*powers, 1000, 2000, 4000, 8000, 16000, 33000, 66000, 131000, 143000)
    assert scheduled("none", PYTHIA_STEPS, "pythia") == ()


@given(STEPS)
def test_names_choose_among_what_there_is_and_keep_the_end(steps: list[int]) -> None:
    for name in ("all", "third", "sparse", "log"):
        found = scheduled(name, steps, "somebody")  # type: ignore[arg-type]
        assert set(found) <= set(steps)
        assert list(found) == sorted(set(found))
        assert found[-1] == max(steps)
    assert scheduled("log", steps, "somebody")[0] == min(steps)


def test_sparse_scales_with_the_length_of_the_training() -> None:
    found = scheduled("sparse", OLMO, "olmo")
    assert found[-1] == 738_000
    assert found[0] == 1000
    assert 20 <= len(found) <= 28


def test_a_list_is_taken_as_it_is_or_refused_with_the_nearest() -> None:
    assert scheduled((143_000, 0, 512), PYTHIA_STEPS, "pythia-70m") == (0, 512, 143_000)
    with pytest.raises(OntogenyError, match=r"pythia-70m has no .*\n  step 500; nearest: 128, 256, 512$"):
        scheduled((0, 500), PYTHIA_STEPS, "pythia-70m")


def test_a_checkpoint_is_analysed_for_what_its_analyses_rest_on() -> None:
    found = coverage({"behaviour": "all", "circuits": (4, 8), "algorithm": (8,)}, (0, 2, 4, 8), "here")
    assert found == {0: ANALYSES[:1], 2: ANALYSES[:1], 4: ANALYSES[:2], 8: ANALYSES}
    alone = coverage({"behaviour": "none", "circuits": "none", "algorithm": (2,)}, (0, 2, 4, 8), "here")
    assert alone == {2: ANALYSES}
