"""Which checkpoints stand for the training: chosen by the schedule alone, never by what was found there."""

from __future__ import annotations

import math
from collections.abc import Sequence


def choose_anchors(steps: Sequence[int], count: int, octaves: float) -> tuple[int, ...]:
    """At most `count` steps: the last, and those nearest to `octaves`, 2 x `octaves`, ... before it; ascending.

    Nearest in the logarithm of the step; of two that are as near the earlier. A checkpoint is chosen once, and step 0,
    which has no logarithm, only as the last.
    """
    if not steps:
        return ()
    last = max(steps)
    later = sorted(step for step in set(steps) if step > 0)
    wanted = [math.log2(last) - octaves * place for place in range(count)] if last > 0 else []
    found = {min(later, key=lambda step: (abs(math.log2(step) - at), step)) for at in wanted}
    return tuple(sorted(found | {last}))
