"""What a study found about heads and the algorithm, at the end of training: tables and sentences for the summary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.core.roles import head_names
from ontogeny.records import MemberRecord
from ontogeny.stages.terminal import new_table, number, short_onset, whole

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

NAME_MOVER = "name_mover"
_SHOWN = 6


def last_checkpoints(records: Sequence[MemberRecord]) -> dict[str, CheckpointAnalysis]:
    """The last analysed checkpoint of each member that has one."""
    return {r.member: max(r.analyses, key=lambda a: a.ref.step) for r in records if r.analyses}


def role_table(records: Sequence[MemberRecord], onsets: pd.DataFrame) -> Table:
    """Member x role: the head with the largest score, its chance rate, who holds the role, and since when."""
    from ontogeny.components import ROLES
    from ontogeny.series import leading_head

    table = new_table("Head roles, end of training", "member", "role", "best", "score", "chance", "onset")
    table.add_column("heads that hold it")
    appeared = {(row.member, row.role): row for row in onsets.itertuples()}
    for member, analysis in last_checkpoints(records).items():
        for name, scores in analysis.roles.items():
            title = ROLES[name].title if name in ROLES else name
            head, row = leading_head(scores), appeared.get((member, name))
            if head is None:
                table.add_row(member, title, "-", "-", "-", "-", f"not measured: {scores.reason}")
                continue
            onset = "-" if row is None else whole(row.step) if row.status == "found" else short_onset(str(row.status))
            numbers = (_digits(float(scores.score[head])), _digits(float(scores.chance[head])))
            holders = analysis.holders.get(name, ())
            why = str(row.reason) if holders and row is not None and row.status == "never" else ""
            heads = _names(holders) + (f" (no onset: {why})" if why else "")
            table.add_row(member, title, *head_names([head]), *numbers, onset, heads)
        table.add_section()
    return table


def algorithm_table(records: Sequence[MemberRecord]) -> Table:
    """Member x metric: the paper's Figure 4 B, C, D with their nulls, or why they are undefined."""
    from ontogeny.series import METRICS

    title = "IOI's algorithm, end of training (per cent of |e|; null: 95th percentile)"
    table = new_table(title, "member", "metric of IOI", "value", "null", "in circuit")
    table.add_column("heads")
    for member, analysis in last_checkpoints(records).items():
        found = analysis.algorithm
        if found is None:
            continue
        if not found.metrics:
            table.add_row(member, "B, C, D", "-", "-", "-", f"undefined: {found.reason}")
            continue
        for letter, name in zip("BCD", METRICS):
            metric = found.metrics[name]
            if metric.status == "undefined":
                table.add_row(member, f"{letter} {name}", "-", "-", "-", f"undefined: {metric.reason}")
                continue
            numbers = (_percent(metric.value), _percent(metric.null_p95), _percent(metric.value_in_circuit))
            table.add_row(member, f"{letter} {name}", *numbers, _names(metric.heads))
        table.add_section()
    return table


def check_table(records: Sequence[MemberRecord]) -> Table:
    """Member x task: how much of a found circuit leaves MLPs, and how many of its heads have no known role."""
    title = "Checks of the circuits, end of training (per cent)"
    table = new_table(title, "member", "task", "|score| from MLPs", "graph's edges from MLPs", "heads without a role")
    names = ("mlp_share_of_score", "mlp_share_of_graph", "unknown_role_share_of_heads")
    for member, analysis in last_checkpoints(records).items():
        for task, result in analysis.tasks.items():
            if result.verification is not None:
                numbers = (result.verification.numbers.get(name, math.nan) for name in names)
                table.add_row(member, task, *(_percent(100 * number) for number in numbers))
        table.add_section()
    return table


def handover_sentence(handovers: pd.DataFrame, sustain: int) -> str:
    """Whether heads that lose a role are followed by others, beside what a random moment would show."""
    if not len(handovers):
        return "No head that held a role has lost it."
    followed, expected = int((handovers["successor"] != "").sum()), float(handovers["expected"].sum())
    return (
        f"{len(handovers)} times a head lost a role; {followed} times another gained it within {sustain} checkpoints "
        f"(at random moments: {expected:.1f})."
    )


def other_algorithms(records: Sequence[MemberRecord]) -> Iterator[str]:
    """A sentence for each member that solves IOI, but not by heads that move names (METHODS 0.1)."""
    for member, analysis in last_checkpoints(records).items():
        task, copying = analysis.tasks.get(IOI), analysis.roles.get(NAME_MOVER)
        if task is None or task.circuit.status == "not_learned" or copying is None or copying.status != "measured":
            continue
        if not analysis.holders.get(NAME_MOVER):
            yield (
                f"{member} has learnt IOI, but no head copies names more often than chance: "
                "IOI is solved by another algorithm than the paper's."
            )
            continue
        direct = analysis.algorithm.metrics.get("direct") if analysis.algorithm is not None else None
        if direct is not None and direct.status == "measured" and not direct.value > direct.null_p95:
            yield (
                f"{member} has heads that copy names, but they and the copy-suppression heads carry "
                f"{direct.value:.0f} % of the direct effect, no more than as many heads drawn at random may "
                f"({direct.null_p95:.0f} %): that IOI is solved by name movers is not shown."
            )


def _names(heads: Sequence[tuple[int, int]]) -> str:
    """The first few."""
    more = f" and {len(heads) - _SHOWN} more" if len(heads) > _SHOWN else ""
    return ", ".join(head_names(heads[:_SHOWN])) + more if heads else "none"


def _digits(value: float) -> str:
    """Two decimals, and more where the first digits are zeros: some roles are held at a score of 0.003."""
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else number(value)


def _percent(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "-"
