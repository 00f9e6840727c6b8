"""What a checkpoint's run shows of roles and of the algorithm: tags, tables, sentences. No mlflow in this file."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ontogeny.core.algorithm import AlgorithmResult
from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.core.roles import head_names
from ontogeny.series import METRICS, leading_head


def leading_heads(analysis: CheckpointAnalysis) -> dict[str, str]:
    """Role -> name of the head with the largest score, where one is defined."""
    found = {role: leading_head(scores) for role, scores in analysis.roles.items()}
    return {role: head_names([head])[0] for role, head in found.items() if head is not None}


def mechanism_files(analysis: CheckpointAnalysis, task: str) -> dict[str, bytes]:
    """Artifacts by path: every head's score in every role; for IOI, path effects and metrics."""
    files: dict[str, bytes] = {}
    if analysis.roles:
        files["roles/heads.csv"] = _heads(analysis).encode()
    if task == IOI and analysis.algorithm is not None:
        files["algorithm/metrics.csv"] = _metrics(analysis.algorithm).encode()
        if analysis.algorithm.effects:
            files["algorithm/effects.csv"] = _effects(analysis.algorithm).encode()
    return files


def mechanism_note(analysis: CheckpointAnalysis, task: str) -> list[str]:
    """Sentences of a run's description."""
    said = []
    held = [f"{role} {', '.join(head_names(heads))}" for role, heads in analysis.holders.items() if heads]
    if analysis.roles:
        said.append(f"Heads with a role: {'; '.join(held) or 'none'}. Every head: *Artifacts*, `roles/heads.csv`.")
    if task == IOI and analysis.algorithm is not None:
        found = analysis.algorithm
        words = [_word(found, name) for name in METRICS]
        said.append(f"The algorithm: {'; '.join(words)}." if found.metrics else f"The algorithm: {found.reason}")
    return said


def _word(found: AlgorithmResult, name: str) -> str:
    metric = found.metrics.get(name)
    if metric is None or metric.status == "undefined":
        return f"{name} undefined" + (f" ({metric.reason.rstrip('.')})" if metric is not None else "")
    return f"{name} {metric.value:.0f} % (null 95 %: {metric.null_p95:.0f})"


def _heads(analysis: CheckpointAnalysis) -> str:
    rows = []
    for role, scores in analysis.roles.items():
        held = set(analysis.holders.get(role, ()))
        for layer, (values, chances) in enumerate(zip(scores.score.tolist(), scores.chance.tolist())):
            for index, (score, chance) in enumerate(zip(values, chances)):
                (name,) = head_names([(layer, index)])
                rows.append((role, scores.status, name, score, chance, int((layer, index) in held)))
    return _table(("role", "status", "head", "score", "chance", "holds"), rows)


def _metrics(found: AlgorithmResult) -> str:
    numbers = ("value", "value_frozen", "value_in_circuit", "null_mean", "null_p95")
    rows = [
        (
            m.name,
            m.status,
            *(getattr(m, n) for n in numbers),
            *(" ".join(head_names(h)) for h in (m.heads, m.receivers)),
        )
        for m in found.metrics.values()
    ]
    return _table(("metric", "status", *numbers, "heads", "receivers"), rows)


def _effects(found: AlgorithmResult) -> str:
    rows = [
        (name, *head_names([(layer, index)]), float(effects.effect[layer, index]), float(effects.frozen[layer, index]))
        for name, effects in found.effects.items()
        for layer in range(effects.effect.shape[0])
        for index in range(effects.effect.shape[1])
    ]
    return _table(("metric", "head", "effect", "frozen"), rows)


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV; an empty cell where a number is undefined."""
    lines = [",".join(columns)]
    for row in rows:
        lines.append(",".join("" if isinstance(c, float) and not math.isfinite(c) else str(c) for c in row))
    return "\n".join(lines) + "\n"
