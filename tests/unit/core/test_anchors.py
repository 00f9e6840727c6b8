"""Anchors come from the schedule: the last checkpoint, and those some octaves before it."""

import pytest

from ontogeny.core.schedule import choose_anchors


def test_an_octave_apart_counted_from_the_end() -> None:
    powers = [0, *(2**n for n in range(12))]
    assert choose_anchors(powers, 8, 1.0) == (16, 32, 64, 128, 256, 512, 1024, 2048)
    assert choose_anchors(powers, 3, 2.0) == (128, 512, 2048)


def test_the_nearest_in_octaves_and_none_twice() -> None:
    # 100 / 2^0.5 = 70.7: 64 is 0.14 octaves from it, 90 is 0.35; 50 has 64 at 0.36 and 30 at 0.74; 35.4 has 30.
    assert choose_anchors([1, 30, 64, 90, 100], 4, 0.5) == (30, 64, 100)


@pytest.mark.parametrize(("steps", "found"), [([], ()), ([0], (0,)), ([7], (7,)), ([0, 5], (5,))])
def test_short_schedules(steps: list[int], found: tuple[int, ...]) -> None:
    assert choose_anchors(steps, 8, 0.5) == found


def test_only_the_schedule_counts_whatever_its_order() -> None:
    steps = [0, 1, 8, 64, 128, 152, 181, 215, 256, 304, 362, 431, 512, 666, 820, 2048]
    assert choose_anchors(steps[::-1], 8, 0.5) == choose_anchors(steps, 8, 0.5)
    assert len(choose_anchors(steps, 8, 0.5)) <= 8
    assert choose_anchors(steps, 1, 0.5) == (2048,)


def test_a_model_that_was_trained_before_is_an_anchor_too() -> None:
    steps = (0, 10, 20, 40, 80)
    assert choose_anchors(steps, 8, 1.0) == (10, 20, 40, 80)
    assert choose_anchors(steps, 8, 1.0, start=True) == steps
    assert choose_anchors(steps, 3, 1.0, start=True) == (0, 40, 80)
    assert choose_anchors(steps, 1, 1.0, start=True) == (80,)
    assert choose_anchors((0,), 8, 1.0, start=True) == (0,)
