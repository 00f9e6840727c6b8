"""Circuits, path patching and roles go on with less at once when memory runs out, and find the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ontogeny.components import attention_roles, copy_suppression
from ontogeny.components.base import ROLES, Material, Texts
from ontogeny.core.circuit import EdgeScores, rank_edges
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.params import RolesParams
from ontogeny.patching import circuit_eval, path_patching
from ontogeny.patching.circuit_eval import CircuitEvaluator
from ontogeny.patching.path_patching import PathPatcher, head_readers
from support.engine import neox_subject, random_batch

FULL = torch.OutOfMemoryError("CUDA out of memory.")
EXACT = {"atol": 1e-12, "rtol": 0.0}
"""In float64; other parts of a batch add up in another order."""


def circuits(count: int) -> list[Any]:
    subject = neox_subject()
    values = torch.randn(subject.graph.n_writers, subject.graph.n_readers, generator=torch.Generator().manual_seed(0))
    ranking = rank_edges(EdgeScores(subject.graph, values * subject.graph.real_edges, "random"), "greedy")
    return [ranking.circuit(n) for n in range(10, 10 + count)]


class Crowded:
    """A method of a part that fails while its batch has more pairs than fit."""

    def __init__(self, cls: type, name: str, fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[int] = []
        whole: Callable[..., Any] = getattr(cls, name)

        def crowded(part: Any, *arguments: Any) -> Any:
            pairs = len(part.readout.batch)
            self.tried.append(pairs)
            if pairs > fitting:
                raise FULL
            return whole(part, *arguments)

        monkeypatch.setattr(cls, name, crowded)


def test_circuits_are_evaluated_on_fewer_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch = neox_subject(), random_batch(pairs=7)
    expected = CircuitEvaluator(subject, batch).evaluate_all(circuits(3))
    crowded = Crowded(circuit_eval._Part, "evaluate", 2, monkeypatch)
    evaluator = CircuitEvaluator(subject, batch)
    torch.testing.assert_close(evaluator.evaluate_all(circuits(3)), expected, **EXACT)
    assert crowded.tried[:3] == [7, 7, 3], "all at once, then parts that are not kept, then smaller ones"
    assert set(crowded.tried[3:]) == {1}
    assert len(crowded.tried[3:]) == 3 * 7
    torch.testing.assert_close(evaluator.clean, CircuitEvaluator(subject, batch).clean, **EXACT)


def test_parts_that_cannot_all_be_kept_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch = neox_subject(), random_batch(pairs=6)
    expected = CircuitEvaluator(subject, batch).evaluate_all(circuits(3))
    whole, alive = circuit_eval._Part.__init__, list[int]()

    def crowded(part: Any, *arguments: Any) -> None:
        if len(alive) == 1:
            alive.clear()
            raise FULL
        alive.append(1)
        whole(part, *arguments)
        if evaluator:
            alive.clear()

    evaluator: list[CircuitEvaluator] = []
    monkeypatch.setattr(circuit_eval._Part, "__init__", crowded)
    evaluator.append(CircuitEvaluator.__new__(CircuitEvaluator))
    evaluator[0].__init__(subject, batch, batch_pairs=3)  # type: ignore[misc]
    torch.testing.assert_close(evaluator[0].evaluate_all(circuits(3)), expected, **EXACT)


def test_a_pair_that_does_not_fit_and_means_over_all_pairs_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch = neox_subject(), random_batch(pairs=4)
    evaluator = CircuitEvaluator(subject, batch)
    together = CircuitEvaluator(subject, batch, "mean")
    crowded = Crowded(circuit_eval._Part, "evaluate", 0, monkeypatch)
    with pytest.raises(ImpossibleRequest, match="1 prompt pairs do not fit"):
        evaluator.evaluate(circuits(1)[0])
    assert crowded.tried == [4, 4, 2, 1]
    with pytest.raises(ImpossibleRequest, match="4 prompt pairs do not fit, and cannot be divided"):
        together.evaluate(circuits(1)[0])


def test_path_patching_takes_fewer_senders_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch = neox_subject(), random_batch(pairs=3)
    receivers = head_readers(subject.graph, 0, [(1, 0), (1, 2)])
    expected = PathPatcher(subject, batch).patch(receivers)
    whole, budgets = path_patching._Part.patch, list[int]()

    def crowded(part: Any, *arguments: Any) -> Any:
        budgets.append(part.budget)
        if part.budget > 2**16:
            raise FULL
        return whole(part, *arguments)

    monkeypatch.setattr(path_patching._Part, "patch", crowded)
    found = PathPatcher(subject, batch, budget=2**18).patch(receivers)
    assert budgets == [2**18, 2**17, 2**16]
    torch.testing.assert_close(found.metric, expected.metric, **EXACT)
    assert not torch.equal(found.metric[0], found.metric[1])
    monkeypatch.setattr(path_patching._Part, "patch", lambda *_: (_ for _ in ()).throw(FULL))
    with pytest.raises(ImpossibleRequest, match="a single set of senders"):
        PathPatcher(subject, batch).patch(receivers)


def test_the_runs_of_path_patching_are_made_of_fewer_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, batch = neox_subject(), random_batch(pairs=5)
    receivers = (subject.graph.logits_reader,)
    expected = PathPatcher(subject, batch).patch(receivers)
    whole = path_patching._part

    def crowded(subject: Any, batch: Any, budget: int) -> Any:
        if len(batch) > 2:
            raise FULL
        return whole(subject, batch, budget)

    monkeypatch.setattr(path_patching, "_part", crowded)
    torch.testing.assert_close(PathPatcher(subject, batch).patch(receivers).metric, expected.metric, **EXACT)


@pytest.mark.parametrize("role", ["induction", "copy_suppression"])
def test_roles_are_measured_on_fewer_rows_at_a_time(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = neox_subject()
    tokens = torch.randint(40, (30, 8), generator=torch.Generator().manual_seed(0))
    material = Material(text=Texts(tokens, torch.full((30,), 8)))
    params = RolesParams.model_validate(
        {"attention": {"sequences": 9, "longest": 8}, "copy_suppression": {"tokens": 100}}
    )
    expected = ROLES[role].score(subject, material, params)
    assert expected.status == "measured"
    module = attention_roles if role == "induction" else copy_suppression
    whole, rows = module.run_blocks, list[int]()

    def crowded(weights: Any, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:
        rows.append(len(tokens))
        if len(tokens) > 4:
            raise FULL
        return whole(weights, tokens, lengths)

    monkeypatch.setattr(module, "run_blocks", crowded)
    found = ROLES[role].score(subject, material, params)
    assert rows[0] > 4
    assert max(rows[-3:]) <= 4
    torch.testing.assert_close(found.score, expected.score, atol=1e-10, rtol=0.0)
