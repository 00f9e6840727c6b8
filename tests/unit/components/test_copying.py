"""Copy scores: against one head and one name at a time; the short cut through a sample of the vocabulary is exact."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ontogeny.components import ROLES, Material, copying, holders
from ontogeny.components.copying import _unsettled, name_places, names_among
from ontogeny.core.pairs import TaskDataset
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject, subject_of
from ontogeny.params import CopyingParams, RolesParams
from support import hand_set
from support.engine import neox_model, neox_subject
from support.naive_roles import KINDS, model_of, ov_logits, over_heads, subject_of_kind


def measure(subject: Subject, dataset: TaskDataset | None, params: RolesParams) -> dict[str, RoleScores]:
    found: dict[str, RoleScores] = {}
    for name in ("name_mover", "negative_name_mover"):
        found[name] = ROLES[name].score(subject, Material(ioi=dataset, roles=found), params)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_one_name_at_a_time(kind: str) -> None:
    subject, model, dataset = subject_of_kind(kind), model_of(kind), hand_set.ioi(6)
    vectors = []
    for pair in dataset.splits["discover"]:
        words = pair.clean.replace(",", " ,").replace(".", " .").split()
        row = hand_set.tokenizer().encode(pair.clean)
        assert len(words) == len(row)
        s1, s2 = (i for i, word in enumerate(words) if word == pair.slots["S"])
        resid = model(torch.tensor([row]), output_hidden_states=True).hidden_states[1][0]
        vectors += [(resid[place], row[place]) for place in (words.index(pair.slots["IO"]), s1, s2)]
    names = {token for _, token in vectors}
    params = RolesParams(copying=CopyingParams(top=12))
    found = measure(subject, dataset, params)
    for sign, role in ((1, "name_mover"), (-1, "negative_name_mover")):
        tops: dict[tuple[int, int], list[set[int]]] = {}
        for layer, head in ((i, h) for i in range(3) for h in range(4)):
            tops[layer, head] = [
                set((sign * ov_logits(model, layer, head, x)).topk(12).indices.tolist()) for x, _ in vectors
            ]

        def own(layer: int, head: int, tops: Any = tops) -> float:
            return 100 * sum(t in top for (_, t), top in zip(vectors, tops[layer, head])) / len(vectors)

        def other(layer: int, head: int, tops: Any = tops) -> float:
            shares = [len((names - {t}) & top) / (len(names) - 1) for (_, t), top in zip(vectors, tops[layer, head])]
            return 100 * sum(shares) / len(vectors)

        expected = over_heads(model, own)
        assert expected.std() > 1
        torch.testing.assert_close(found[role].score, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(found[role].chance, over_heads(model, other), atol=1e-6, rtol=0)
        thirds = sum(found[role].details[f"at_{place}"] for place in copying.PLACES) / 3
        torch.testing.assert_close(thirds, expected)


def test_a_sample_of_the_vocabulary_settles_most_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    unembed = torch.randn(8, 6000, generator=generator, dtype=torch.float64)
    vectors = torch.randn(300, 8, generator=generator, dtype=torch.float64)
    names = torch.randperm(6000, generator=generator)[:20].sort().values
    vectors[:40] += 3 * unembed[:, names[torch.arange(40) % 20]].T  # these lift names
    weights: Any = SimpleNamespace(unembed=unembed)
    monkeypatch.setattr(copying, "SAMPLE", 500)
    still_open = _unsettled(weights, vectors, names, 5)
    assert 20 < int(still_open.sum()) < 200
    found = names_among(weights, vectors, names, 5)
    logits = vectors @ unembed
    for sign, largest in enumerate((True, False)):
        top = logits.topk(5, largest=largest).indices
        expected = (top[:, :, None] == names).any(dim=1)
        assert expected.any()
        assert torch.equal(found[sign], expected)


def test_chance_is_what_random_heads_score() -> None:
    """Heads that know no name from another: score and chance have one mean, within 4 errors of the models' means."""
    dataset, base = hand_set.ioi(6), neox_subject(layers=1, heads=40, d_head=2, vocab=hand_set.T)
    base = replace(base, tokenizer=hand_set.tokenizer())
    generator = torch.Generator().manual_seed(0)

    def noise(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    excess = []
    for _ in range(20):
        weights = base.weights
        blocks = tuple(replace(b, qkv=noise(b.qkv), out=noise(b.out)) for b in weights.blocks)
        weights = replace(weights, embed=noise(weights.embed), unembed=noise(weights.unembed), blocks=blocks)
        found = measure(replace(base, weights=weights), dataset, RolesParams())
        excess += [float((scores.score - scores.chance).mean()) for scores in found.values()]
        assert float(found["name_mover"].chance.mean()) > 1
    error = float(torch.tensor(excess).std()) / len(excess) ** 0.5
    assert 0 < error < 1
    assert abs(sum(excess) / len(excess)) < 4 * error


def test_a_head_that_says_nothing_copies_nothing() -> None:
    found = measure(hand_set.induction_pair().subject, hand_set.ioi(6), RolesParams())
    assert float(found["name_mover"].score[0, 0]) == 0.0
    assert float(found["negative_name_mover"].score[0, 0]) == 0.0


def test_a_head_that_lifts_any_name_holds_nothing() -> None:
    """With every value replaced by a constant that lifts five names, score and chance are alike."""
    hand = hand_set.copying_model()
    block = hand.subject.weights.blocks[1]
    width = hand.subject.architecture.n_heads * hand.subject.architecture.d_head
    bias, qkv = block.qkv_bias.clone(), block.qkv.clone()
    qkv[:, 2 * width :] = 0.0
    start = 2 * width + 3 * hand.subject.architecture.d_head
    bias[start + torch.tensor(hand_set.ids(hand_set.NAMES[:5]))] = 1.0
    blocks = list(hand.subject.weights.blocks)
    blocks[1] = replace(block, qkv=qkv, qkv_bias=bias)
    subject = replace(hand.subject, weights=replace(hand.subject.weights, blocks=tuple(blocks)))
    found = measure(subject, hand_set.ioi(), RolesParams())["name_mover"]
    assert float(found.score[1, 3]) > 30
    assert float(found.chance[1, 3]) > 30
    assert holders(found, RolesParams().thresholds) == ()
    assert holders(measure(hand.subject, hand_set.ioi(), RolesParams())["name_mover"], RolesParams().thresholds) == (
        (1, 3),
    )


def test_without_layernorm_the_sizes_of_what_is_read_count() -> None:
    subject, dataset = subject_of_kind("gpt_neox"), hand_set.ioi(6)
    real, none = (
        measure(subject, dataset, RolesParams(copying=CopyingParams(top=12, layer_norm=ln)))["name_mover"].score
        for ln in ("real", "none")
    )
    assert not torch.equal(real, none)


def test_names_are_found_where_they_stand() -> None:
    pairs = hand_set.ioi().splits["discover"]
    found = name_places(pairs, hand_set.tokenizer())
    assert not isinstance(found, str)
    for row, places, pair in zip(found.tokens, found.places, pairs):
        said = [hand_set.tokenizer().decode([int(row[place])]) for place in places]
        assert said == [" " + pair.slots[slot] for slot in ("IO", "S", "S")]
        assert places[1] < places[2]
    torch.testing.assert_close(found.names[found.which], found.tokens.gather(1, found.places))


def test_it_is_undefined_without_names() -> None:
    params = RolesParams()
    pair = hand_set.ioi().splits["discover"][0]
    nameless = replace(hand_set.ioi(), splits={"discover": (replace(pair, slots={}),)})
    empty = replace(hand_set.ioi(), splits={"discover": ()})
    small = subject_of(neox_model(vocab=40), tokenizer=hand_set.tokenizer())
    hand = hand_set.copying_model().subject
    for subject, dataset, reason in (
        (hand, None, "no IOI data set"),
        (neox_subject(), hand_set.ioi(), "no tokenizer.json"),
        (hand, nameless, "IO must stand once"),
        (hand, empty, "no prompts"),
        (small, hand_set.ioi(), "beyond the vocabulary"),
    ):
        for name, scores in measure(subject, dataset, params).items():
            assert (scores.role, scores.status) == (name, "undefined")
            assert reason in scores.reason
            assert bool(scores.score.isnan().all())
