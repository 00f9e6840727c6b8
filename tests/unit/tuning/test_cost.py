"""Passes are counted where they happen."""

from collections import Counter
from typing import Any

import pytest

from ontogeny.attribution import METHODS, score_edges
from ontogeny.attribution.path import GradientSums
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.tuning import ScoreSetting
from ontogeny.models import forward
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.tuning.cost import passes
from support.engine import neox_subject, random_batch

SCORES = [
    ScoreSetting("eap", "", 0),
    ScoreSetting("clean_corrupted", "", 0),
    *(ScoreSetting("eap_ig", rule, m) for rule in ("right", "left", "midpoint") for m in (1, 2, 5)),
    *(ScoreSetting("eap_ig_activations", rule, 2) for rule in ("right", "left", "midpoint")),
    *(ScoreSetting("ceap", rule, 3) for rule in ("right", "left", "midpoint")),
    ScoreSetting("exact", "", 0),
]


@pytest.mark.parametrize("scores", SCORES, ids=str)
def test_the_cost_is_what_the_engine_does(scores: ScoreSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str, kind: str) -> None:
        inner = getattr(owner, name)

        def counting(*arguments: Any, **more: Any) -> Any:
            counted[kind] += 1
            return inner(*arguments, **more)

        monkeypatch.setattr(owner, name, counting)

    subject, batch = neox_subject(), random_batch()
    count(forward, "_go_on", "forward")
    count(GradientSums, "add", "backward")
    count(CircuitEvaluator, "evaluate", "forward")
    chosen = {"rule": scores.rule, "steps": scores.steps} if scores.steps else {}
    score_edges(subject, batch, AttributionParams.model_validate({"method": scores.method} | chosen))
    assert counted["forward"] >= 2
    assert passes(scores, subject.graph) == (counted["forward"], counted["backward"])


def test_every_method_has_a_cost() -> None:
    graph = neox_subject().graph
    assert {s.method for s in SCORES} == set(METHODS)
    assert all(sum(passes(s, graph)) > 0 for s in SCORES)
    with pytest.raises(ImpossibleRequest, match="magic"):
        passes(ScoreSetting("magic", "", 0), graph)


def test_a_step_costs_a_forward_and_a_backward_pass() -> None:
    """By hand: m = 5 with the clean end among the points: corrupted, clean, four in between; five backward."""
    graph = neox_subject().graph
    assert passes(ScoreSetting("eap_ig", "right", 5), graph) == (6, 5)
    assert passes(ScoreSetting("eap_ig", "midpoint", 5), graph) == (7, 5)
