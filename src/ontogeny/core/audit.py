"""What is wrong with a member's checkpoints before any analysis: published suites have bad uploads (METHODS 1.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ontogeny.core.results import CheckpointRef

Fault = Literal["duplicate", "untrained", "not_finite", "shape", "config"]


@dataclass(frozen=True)
class WeightsFacts:
    """What loading a checkpoint tells of its weights."""

    shape: str
    """Layers, heads, widths, vocabulary and parameters, in words."""
    not_finite: int
    """Numbers that are not finite; such a checkpoint is not analysed."""


@dataclass(frozen=True)
class Finding:
    """A checkpoint that is not what it should be."""

    step: int
    fault: Fault
    """`duplicate`: the weights of an earlier step; `untrained`: those of step 0 at step 1; `not_finite`; `shape`,
    `config`: other than those of most checkpoints of this member."""
    detail: str
    """One sentence."""


def audit(refs: Sequence[CheckpointRef], facts: Mapping[int, WeightsFacts]) -> tuple[Finding, ...]:
    """The findings on a member's checkpoints, by step; `facts` are those of the steps that could be loaded so far."""
    found = [*_duplicates(refs), *_not_finite(facts)]
    found += _odd({step: f.shape for step, f in facts.items() if not f.not_finite}, "shape")
    found += _odd({ref.step: ref.config_digest for ref in refs}, "config")
    return tuple(sorted(found, key=lambda finding: (finding.step, finding.fault)))


def duplicates(refs: Sequence[CheckpointRef]) -> dict[int, int]:
    """Step -> the earlier step whose weights are the same."""
    first: dict[str, int] = {}
    again: dict[int, int] = {}
    for ref in sorted(refs, key=lambda ref: ref.step):
        earlier = first.setdefault(ref.weights_digest, ref.step)
        if earlier != ref.step:
            again[ref.step] = earlier
    return again


def _duplicates(refs: Sequence[CheckpointRef]) -> Iterator[Finding]:
    for step, earlier in duplicates(refs).items():
        fault: Fault = "untrained" if (step, earlier) == (1, 0) else "duplicate"
        yield Finding(step, fault, f"Its weights are those of step {earlier}.")


def _not_finite(facts: Mapping[int, WeightsFacts]) -> Iterator[Finding]:
    for step, found in facts.items():
        if found.not_finite:
            yield Finding(step, "not_finite", f"{found.not_finite:,} of its numbers are not finite.")


def _odd(values: Mapping[int, str], fault: Fault) -> Iterator[Finding]:
    """Those that differ from what most have; of two as common, from the earlier."""
    if not values:
        return
    usual = Counter(values[step] for step in sorted(values)).most_common(1)[0][0]
    for step, value in values.items():
        if value != usual:
            yield Finding(step, fault, f"{value} where most have {usual}.")
