"""Which steps of a suite are looked at: schedules by name, or as a list (METHODS 1.2, 1.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ontogeny.core.errors import OntogenyError

ScheduleName = Literal["all", "third", "sparse", "log", "none"]
Schedule = ScheduleName | tuple[int, ...]
Analysis = Literal["behaviour", "circuits", "algorithm"]
"""What a checkpoint may be analysed for, each on top of those before it: `circuits` are edge scores, circuits and their
stability; `algorithm` is what every head does, what that says of the circuits, and the algorithm of IOI."""
ANALYSES: tuple[Analysis, ...] = ("behaviour", "circuits", "algorithm")

PYTHIA_STEPS = (0, *(2**i for i in range(10)), *range(1000, 143_001, 1000))
"""All 154 checkpoints of a Pythia model."""
PYTHIA_TOKENS_PER_STEP = 2_097_152
SPARSE_STEPS = (
    256, 512, *range(1000, 9001, 1000), *range(10_000, 45_001, 5000), *range(50_000, 90_001, 10_000), 100_000, 120_000,
    140_000, 143_000,
)  # fmt: skip
"""The schedule of circuits-over-time for Pythia (METHODS 1.3)."""


def scheduled(schedule: Schedule, available: Iterable[int], where: str) -> tuple[int, ...]:
    """The steps among `available` that a schedule names, ascending.

    `third` is every third checkpoint counted back from the last; `sparse` is that of circuits-over-time, scaled to the
    length of this training; `log` are the first, the last, and those nearest to the powers of two; names take the
    nearest checkpoints that there are, a list must name them exactly.

    Raises:
        OntogenyError: a listed step is not there; the message, which begins with `where`, lists the nearest ones.
    """
    steps = sorted(set(available))
    if isinstance(schedule, str):
        return tuple(sorted(set(_NAMED[schedule](steps)))) if steps else ()
    missing = sorted(set(schedule) - set(steps))
    if missing:
        lines = [f"  step {step}; nearest: {', '.join(map(str, nearest_steps(step, steps)))}" for step in missing[:5]]
        more = f"\n  and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise OntogenyError(f"{where} has no checkpoint of these steps:\n" + "\n".join(lines) + more)
    return tuple(sorted(set(schedule)))


def nearest_steps(step: int, steps: Sequence[int], count: int = 3) -> list[int]:
    """The `count` steps closest to `step`, ascending."""
    return sorted(sorted(steps, key=lambda s: (abs(s - step), s))[:count])


def coverage(
    schedules: Mapping[Analysis, Schedule], available: Iterable[int], where: str
) -> dict[int, tuple[Analysis, ...]]:
    """Step -> what it is analysed for, for the steps that any schedule names.

    A checkpoint that is analysed for one thing is analysed for those before it too: they are what it rests on.
    """
    steps = sorted(set(available))
    found: dict[int, tuple[Analysis, ...]] = {}
    for place, analysis in enumerate(ANALYSES):
        for step in scheduled(schedules[analysis], steps, f"{where} ({analysis})"):
            found[step] = ANALYSES[: place + 1]
    return dict(sorted(found.items()))


def choose_anchors(steps: Sequence[int], count: int, octaves: float, *, start: bool = False) -> tuple[int, ...]:
    """At most `count` steps: the last, and those nearest to `octaves`, 2 x `octaves`, ... before it; ascending.

    Chosen by the schedule alone, never by what was found there. Nearest in the logarithm of the step; of two that are
    as near the earlier. A checkpoint is chosen once, and step 0, which has no logarithm, only as the last; or with
    `start` (it is a model that was trained before) in place of the earliest.
    """
    if not steps:
        return ()
    last = max(steps)
    begin = [0] if start and 0 in steps and last > 0 and count > 1 else []
    later = sorted(step for step in set(steps) if step > 0)
    wanted = [math.log2(last) - octaves * place for place in range(count - len(begin))] if last > 0 else []
    found = {min(later, key=lambda step: (abs(math.log2(step) - at), step)) for at in wanted}
    return tuple(sorted({*begin, *found, last}))


def _third(steps: Sequence[int]) -> list[int]:
    return list(steps[::-1][::3])


def _sparse(steps: Sequence[int]) -> list[int]:
    return [_nearest(step * steps[-1] / SPARSE_STEPS[-1], steps) for step in SPARSE_STEPS]


def _log(steps: Sequence[int]) -> list[int]:
    octaves = range(int(math.log2(max(steps[-1], 1))) + 1)
    return [steps[0], steps[-1], *(_nearest(2.0**octave, steps) for octave in octaves)]


def _nearest(target: float, steps: Sequence[int]) -> int:
    return min(steps, key=lambda step: (abs(step - target), step))


_NAMED: dict[str, Callable[[Sequence[int]], Sequence[int]]] = {
    "all": list,
    "third": _third,
    "sparse": _sparse,
    "log": _log,
    "none": lambda _: [],
}
