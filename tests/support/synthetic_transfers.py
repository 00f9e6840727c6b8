"""What the stage `transfer` would say of a made-up study (`synthetic_study`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ontogeny.core.circuit import jaccard_edges
from ontogeny.core.results import CircuitResult, TaskAnalysis
from ontogeny.core.transfer import HeadAblation, HeadMatch, Transfer
from ontogeny.records import MemberRecord, TransferRecord
from support.synthetic_study import STEPS

NAN = math.nan
Place = tuple[str, int, str]
_NEEDED = (("ioi", "name_mover"), ("ioi", "induction"), ("greater_than", "successor"))


def transfers(records: Sequence[MemberRecord], steps: Sequence[int] = STEPS[-8:]) -> tuple[TransferRecord, ...]:
    """Circuits keep what they are worth within an octave, lose it over four; another seed's do only when matched."""
    found = {(r.member, a.ref.step, task): t for r in records for a in r.analyses for task, t in a.tasks.items()}
    scale = {r.member: r.member.rpartition("-s")[0] for r in records}
    mates = {r.member: [o for o in records if o is not r and scale[o.member] == scale[r.member]] for r in records}
    return tuple(_transfers(record, mates[record.member], steps, found) for record in records)


def _transfers(
    record: MemberRecord, seeds: Sequence[MemberRecord], steps: Sequence[int], known: Mapping[Place, TaskAnalysis]
) -> TransferRecord:
    there = {analysis.ref.step for analysis in record.analyses}
    tasks = record.analyses[-1].tasks if record.analyses else {}
    anchors, rows = tuple(step for step in steps if step in there), []
    for task in tasks:
        for step in anchors:
            own = [(record.member, s, heads) for s in anchors for heads in ("own", "random")]
            mates = [(o.member, step, heads) for o in seeds for heads in ("unmatched", "matched", "random")]
            for of, source, heads in own + mates:
                here, there_ = known[record.member, step, task].circuit, known[of, source, task].circuit
                apart = abs(math.log2(step / source))
                raw = {"own": 0.82 - 0.15 * apart, "matched": 0.6, "unmatched": 0.2, "random": 0.1}[heads]
                rows.append(_transfer(task, step, of, source, heads, raw, here, there_))
    needed = [(task, role) for task, role in _NEEDED if task in tasks]
    ablations = tuple(_ablation(record, task, role, step) for step in anchors[-2:] for task, role in needed)
    matches = tuple(
        HeadMatch(step, other.member, 0, head, head, 0.5)
        for other in seeds for step in anchors for head in range(2)
    )  # fmt: skip
    return TransferRecord("ladder", record.member, anchors, tuple(rows), ablations, matches)


def _transfer(
    task: str, step: int, of: str, source: int, heads: str, raw: float, here: CircuitResult, there: CircuitResult
) -> Transfer:
    if there.status != "found" or there.circuit is None:
        status = f"no circuit at step {source}: {there.status}"
        return Transfer(task, step, of, source, heads, status, None, NAN, NAN, NAN, NAN)  # type: ignore[arg-type]
    kept, alike = there.circuit.n_edges, NAN
    if here.circuit is not None and here.status == "found":
        alike = jaccard_edges(there.circuit, here.circuit)
    if here.status == "not_learned":
        return Transfer(task, step, of, source, heads, "not_learned", kept, raw, NAN, NAN, alike)  # type: ignore[arg-type]
    status, shown = ("trivial", NAN) if here.status == "trivial" else ("measured", raw)
    return Transfer(task, step, of, source, heads, status, kept, raw, shown, raw - 0.05, alike)  # type: ignore[arg-type]


def _ablation(record: MemberRecord, task: str, role: str, step: int) -> HeadAblation:
    (analysis,) = (a for a in record.analyses if a.ref.step == step)
    heads = analysis.holders.get(role, ())
    if not heads:
        return HeadAblation(task, role, step, "undefined", "No head holds the role.", (), NAN, NAN, 0, 0, NAN, NAN, NAN)
    enough = analysis.model.graph.n_layers > 2 and role == "name_mover"
    status, sets = ("measured", 100) if enough else ("too few sets", 3)
    return HeadAblation(task, role, step, status, "", heads, 1.2, 0.4, sets, sets, 0.3, 0.9, 0.98 if enough else 1.0)  # type: ignore[arg-type]
