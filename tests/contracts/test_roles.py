"""What every head role promises, and the confusion matrix of the detectors. A new role passes this file unchanged.

`python -m pytest tests/contracts/test_roles.py -k confusion -s` prints the matrix.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from rich.console import Console
from rich.table import Table

from ontogeny.components import ROLES, Material, Role, holders
from ontogeny.components.base import register
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import AttentionParams, CopySuppressionParams, RolesParams
from support import hand_set
from support.engine import neox_subject
from support.hand_set import HAND_SET, HandSet
from support.naive_roles import KINDS, subject_of_kind

PARAMS = RolesParams(
    attention=AttentionParams(sequences=4), copy_suppression=CopySuppressionParams(tokens=200, attended=0.05)
)
MATERIAL = Material(ioi=hand_set.ioi(12), text=hand_set.held_out_text())
LARGEST = {"name_mover": 100.0, "negative_name_mover": 100.0}
"""Of a score; 1 where nothing is said."""
ALLOWED = {
    ("induction", "name_mover"),  # what it copies may be a name
    ("copy_suppression", "negative_name_mover"),  # what it unsays may be a name
}
"""Planted -> another detector that may respond too. (The pair's first head is a previous-token head by name.)"""


def measure(subject: Subject, material: Material = MATERIAL) -> dict[str, RoleScores]:
    """All roles, each with those that it needs."""
    found: dict[str, RoleScores] = {}
    for name, role in ROLES.items():
        needed = {need: found[need] for need in role.needs}
        given = Material(material.ioi if role.uses_ioi else None, material.text if role.uses_text else None, needed)
        found[name] = role.score(subject, given, PARAMS)
    return found


@lru_cache
def measured(model: Callable[[], HandSet]) -> dict[str, RoleScores]:
    """Of a model set by hand."""
    return measure(model().subject)


def llama() -> HandSet:
    """A random model."""
    return HandSet(subject_of_kind("llama"), {})


def permute_heads(subject: Subject, orders: list[list[int]]) -> Subject:
    """The same model with its heads in another order, layer by layer."""
    a, blocks = subject.architecture, []
    for block, order in zip(subject.weights.blocks, orders):
        qkv = block.qkv.view(a.d_model, 3, a.n_heads, a.d_head)[:, :, order].reshape_as(block.qkv)
        bias = block.qkv_bias.view(3, a.n_heads, a.d_head)[:, order].reshape_as(block.qkv_bias)
        out = block.out.view(a.n_heads, a.d_head, a.d_model)[order].reshape_as(block.out)
        blocks.append(replace(block, qkv=qkv, qkv_bias=bias, out=out, value_bias=block.value_bias[order]))
    return replace(subject, weights=replace(subject.weights, blocks=tuple(blocks)))


@pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
def test_a_role_says_what_it_is(role: Role) -> None:
    assert ROLES[role.name] is role
    assert role.title
    assert role.source
    assert set(role.sections) <= set(RolesParams.model_fields)
    order = list(ROLES)
    assert all(order.index(need) < order.index(role.name) for need in role.needs)
    with pytest.raises(ValueError, match="already"):
        register(role)
    with pytest.raises(ValueError, match="registered before it"):
        register(replace(role, name="new", needs=("nobody",)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_measured(kind: str) -> None:
    subject = subject_of_kind(kind)
    shape = (subject.graph.n_layers, subject.graph.n_heads)
    for name, scores in measure(subject).items():
        assert scores.role == name
        assert scores.score.shape == scores.chance.shape == shape
        assert all(torch.isfinite(torch.tensor(fact)) for fact in scores.facts.values())
        assert all(detail.shape[:2] == shape for detail in scores.details.values())
        if name != "s_inhibition":  # a random model may have no name movers
            assert scores.status == "measured", scores.reason
            assert bool(scores.score.isfinite().all())
        assert (scores.status == "undefined") == bool(scores.reason)
        found = holders(scores, PARAMS.thresholds)
        values = [float(scores.score[head]) for head in found]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("model", [*HAND_SET, llama])
def test_heads_in_another_order_have_their_scores_in_that_order(model: Callable[[], HandSet]) -> None:
    subject = model().subject
    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(subject.graph.n_heads, generator=generator).tolist() for _ in subject.weights.blocks]
    assert any(order != sorted(order) for order in orders)
    before, after = measured(model), measure(permute_heads(subject, orders))
    for name in ROLES:
        assert before[name].status == after[name].status
        for mine, theirs in ((before[name].score, after[name].score), (before[name].chance, after[name].chance)):
            moved = torch.stack([row[order] for row, order in zip(mine, orders)])
            torch.testing.assert_close(theirs, moved, equal_nan=True, atol=1e-9, rtol=1e-9)


def test_what_is_missing_makes_a_role_undefined_not_zero() -> None:
    """A model without tokenizer, texts and prompts: each role measures what it can, or says why not."""
    for name, scores in measure(neox_subject(), Material()).items():
        attention = name in ("induction", "previous_token", "duplicate_token")
        assert scores.status == ("measured" if attention else "undefined"), name
        if not attention:
            assert scores.reason.endswith(".")
            assert bool(scores.score.isnan().all())
            assert holders(scores, PARAMS.thresholds) == ()


def test_measuring_changes_nothing_and_repeats() -> None:
    subject = subject_of_kind("qwen2")
    before = [tensor.clone() for block in subject.weights.blocks for tensor in vars(block).values()]
    first, second = measure(subject), measure(subject)
    for name in ROLES:
        assert torch.equal(first[name].score.nan_to_num(-9.0), second[name].score.nan_to_num(-9.0))
    after = [tensor for block in subject.weights.blocks for tensor in vars(block).values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after))


def test_confusion_matrix_of_models_set_by_hand() -> None:
    """Each detector is at 0.9 of its maximum or more on its own heads, and near chance on all others."""
    detectors = [name for name in ROLES if name != "negative_name_mover"]
    table = Table("planted", *ROLES, "other heads, largest", title="share of the detector's maximum; - not measured")
    wrong, own = [], set()
    for model in HAND_SET:
        hand = model()
        found = measured(model)
        shares = {name: found[name].score / LARGEST.get(name, 1.0) for name in ROLES}
        limits = {
            name: (2 * found[name].chance / LARGEST.get(name, 1.0)).nan_to_num(0.0).clamp(min=0.1) for name in ROLES
        }
        planted = {head: role for role, head in hand.heads.items()}
        largest = 0.0
        for layer in range(hand.subject.graph.n_layers):
            for head in range(hand.subject.graph.n_heads):
                role, here = planted.get((layer, head)), (layer, head)
                for name in ROLES:
                    value = float(shares[name][here].nan_to_num(0.0))
                    if name == role:
                        own.add(name)
                        wrong += [f"{role} is {value:.2f} on its own head"] if value < 0.9 else []
                    elif (role, name) not in ALLOWED:
                        largest = max(largest, value) if role is None else largest
                        over = value > float(limits[name][here])
                        wrong += (
                            [f"{name} is {value:.2f} on {role or 'an idle head'} of {model.__name__}"] if over else []
                        )
        for head, role in planted.items():
            cells = ["-" if bool(shares[n][head].isnan()) else f"{float(shares[n][head]):.2f}" for n in ROLES]
            table.add_row(f"{role} ({model.__name__})", *cells, f"{largest:.2f}")
    Console(width=200).print(table)
    assert wrong == []
    assert own == set(detectors), "every detector has a head of its own"
