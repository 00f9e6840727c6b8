"""CSPA: against one head, destination and source at a time; what it must say of heads whose work is known."""

import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from ontogeny.components import ROLES, Material, Texts, copy_suppression, holders, texts_of
from ontogeny.components.copy_suppression import FEWEST, batches, divergences, mean_values, split_halves
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import CopySuppressionParams, RolesParams
from support import hand_set
from support.engine import neox_subject
from support.naive_roles import (
    KINDS,
    all_heads,
    final_norm,
    final_scale,
    head_parts,
    model_of,
    onto_logits,
    subject_of_kind,
)

SETTINGS = CopySuppressionParams(tokens=100, attended=0.3)


def measure(subject: Subject, text: Texts | None, settings: CopySuppressionParams = SETTINGS) -> RoleScores:
    return ROLES["copy_suppression"].score(subject, Material(text=text), RolesParams(copy_suppression=settings))


@lru_cache
def text(documents: int = 20, longest: int = 10) -> Texts:
    """Documents of 4 to `longest` tokens, some of them twice, by hand_set's tokenizer."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(2, 30, (documents, longest), generator=generator)
    lengths = torch.randint(4, longest + 1, (documents,), generator=generator)
    lengths[: documents // 4] = longest
    return Texts(tokens, lengths)


@lru_cache
def naive(kind: str) -> dict[str, Tensor]:
    """METHODS 6.4 head by head, destination by destination, source by source: sums of KL over destinations."""
    model = model_of(kind)
    halves = split_halves(text(), SETTINGS)

    def runs(part: Texts) -> list[dict[str, Tensor]]:
        found = []
        for row, n in zip(part.tokens, part.lengths.tolist()):
            out = model(row[None, :n], output_hidden_states=True, output_attentions=True)
            final = []
            hook = final_norm(model).register_forward_pre_hook(lambda _, args, final=final: final.append(args[0][0]))
            model(row[None, :n])
            hook.remove()
            resid = [x[0] for x in out.hidden_states[:-1]]
            found.append({"tokens": row[:n], "final": final[0], "logits": out.logits[0]})
            for layer, head in all_heads(model):
                parts = head_parts(model, layer, head)
                sources = (parts.norm(resid[layer]) @ parts.value + parts.bias) @ parts.out
                found[-1] |= {
                    f"o{layer}.{head}": sources,
                    f"A{layer}.{head}": out.attentions[layer][0, head],
                    f"x{layer}": resid[layer],
                }
        return found

    scored, others = runs(halves.scored), runs(halves.mean)
    reach = [d for d in range(10) if sum(len(doc["tokens"]) > d for doc in others) >= FEWEST]
    u = onto_logits(model, torch.eye(24, dtype=torch.float64)).T  # [vocab, d_model]
    found = {"ablated": torch.zeros(3, 4, dtype=torch.float64), "cspa": torch.zeros(3, 4, dtype=torch.float64)}
    for layer, head in all_heads(model):
        means = {}
        for d in reach:
            rows = [doc for doc in others if len(doc["tokens"]) > d]
            whole = [doc[f"A{layer}.{head}"][d] @ doc[f"o{layer}.{head}"] for doc in rows]
            means[d] = torch.stack(whole).mean(0)
        for doc in scored:
            lens = model.get_output_embeddings()(final_norm(model)(doc[f"x{layer}"]))
            for d in [d for d in range(len(doc["tokens"])) if d in means]:
                A, o, tokens = doc[f"A{layer}.{head}"][d], doc[f"o{layer}.{head}"], doc["tokens"].tolist()
                ranked = sorted(set(tokens[: d + 1]), key=lambda t, d=d, lens=lens: -float(lens[d, t]))
                kept = set(ranked[: math.ceil(0.3 * (d + 1) - 1e-9)])
                added = torch.zeros(24, dtype=torch.float64)
                for s in range(d + 1):
                    part = float((o[s] - means[d]) @ u[tokens[s]]) / float(u[tokens[s]] @ u[tokens[s]])
                    if tokens[s] in kept and part < 0:
                        added += A[s] * part * u[tokens[s]]
                whole = A[: d + 1] @ o[: d + 1]
                logp = doc["logits"][d].log_softmax(-1)
                for name, new in (("ablated", means[d]), ("cspa", means[d] + added)):
                    change = onto_logits(model, new - whole) / final_scale(model, doc["final"][d])
                    logq = (doc["logits"][d] + change).log_softmax(-1)
                    found[name][layer, head] += float((logp.exp() * (logp - logq)).sum())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_are_those_of_one_source_at_a_time(kind: str) -> None:
    expected, found = naive(kind), measure(subject_of_kind(kind), text())
    n = found.facts["destinations"]
    assert 0 < found.facts["left_out"] < n
    for name, detail in (("ablated", "kl_mean_ablated"), ("cspa", "kl_cspa")):
        torch.testing.assert_close(found.details[detail] * n, expected[name], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found.score, 1 - expected["cspa"] / expected["ablated"], atol=1e-6, rtol=0)
    assert (expected["cspa"] - expected["ablated"]).abs().max() > 1e-3


def test_a_planted_suppressor_is_all_copy_suppression_and_nobody_else_is() -> None:
    hand = hand_set.suppressing_model()
    found = measure(hand.subject, hand_set.held_out_text(), CopySuppressionParams(tokens=300))
    planted = hand.heads["copy_suppression"]
    assert float(found.score[planted]) > 0.9
    assert abs(float(found.chance[planted])) < 0.1
    assert holders(found, RolesParams().thresholds) == (planted,)
    rest = found.score.clone()
    rest[planted] = torch.nan
    assert bool(rest.isnan().all()), "heads without an effect of their own are not measured"


def test_a_head_that_says_what_it_sees_is_none() -> None:
    hand = hand_set.copying_model()
    found = measure(hand.subject, hand_set.held_out_text(), CopySuppressionParams(tokens=300))
    assert abs(float(found.score[hand.heads["name_mover"]])) < 0.1


def test_the_null_takes_other_tokens() -> None:
    """One distinct token a document has no other: no null. Chance is NaN, the score is not."""
    subject = subject_of_kind("gpt_neox")
    tokens = torch.arange(2, 26)[:, None].repeat(1, 8)
    found = measure(subject, Texts(tokens, torch.full((24,), 8)))
    assert bool(found.chance.isnan().all())
    assert bool(found.score.isfinite().all())
    assert bool(measure(subject, text()).chance.isfinite().all())


def test_batches_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of_kind("llama")
    halves = split_halves(text(), SETTINGS)

    def sums() -> Tensor:
        means = mean_values(subject, halves.mean)
        return divergences(subject, halves.scored, means, 0.3, torch.Generator().manual_seed(0))[:2]

    whole = sums()
    assert len(list(batches(halves.scored))) < len(halves.scored.lengths)
    monkeypatch.setattr(copy_suppression, "COLUMNS", 10)
    monkeypatch.setattr(copy_suppression, "CHUNK", 7)
    assert len(list(batches(halves.scored))) == len(halves.scored.lengths)
    torch.testing.assert_close(sums(), whole, rtol=1e-10, atol=0)


def test_single_precision_is_enough() -> None:
    """float32 keeps about 7 digits, and a KL of 1e-4 nats is a difference of second order: 1e-3 is ample."""
    subject = neox_subject(vocab=83, double=True)
    single = neox_subject(vocab=83, double=False)
    here, there = (measure(s, text()).score.double() for s in (subject, single))
    torch.testing.assert_close(there, here, atol=1e-3, rtol=0)


def test_halves_share_no_document() -> None:
    lengths = torch.arange(1, 41)
    halves = split_halves(Texts(lengths[:, None].repeat(1, 40), lengths), CopySuppressionParams(tokens=150))
    scored, mean = (set(half.tokens[:, 0].tolist()) for half in (halves.scored, halves.mean))
    assert not scored & mean
    for half in (halves.scored, halves.mean):
        assert 150 <= int(half.lengths.sum()) < 150 + 40
    other = split_halves(Texts(lengths[:, None].repeat(1, 40), lengths), CopySuppressionParams(tokens=150, seed=1))
    assert set(other.scored.tokens[:, 0].tolist()) != scored


def test_text_beyond_the_context_is_cut() -> None:
    subject = subject_of_kind("gpt2")
    long = Texts(torch.arange(40 * 30).view(30, 40) % 80, torch.full((30,), 40))
    cut = Texts(long.tokens[:, :24], torch.full((30,), 24))
    settings = CopySuppressionParams(tokens=240)
    torch.testing.assert_close(measure(subject, long, settings).score, measure(subject, cut, settings).score)


def test_texts_are_read_up_to_the_tokens_wanted() -> None:
    lines = ["When Mary met John.", "", "Mary", "Then John gave a ring to Mary." * 30, "Anna", "never read"]
    found = texts_of(lines, hand_set.tokenizer(), 130)
    assert found.lengths.tolist() == [5, 1, 128]
    assert found.tokens.shape == (3, 128)
    assert found.tokens[0, :5].tolist() == hand_set.tokenizer().encode(lines[0])
    assert texts_of([], hand_set.tokenizer(), 10).tokens.shape == (0, 1)


def test_it_is_undefined_without_text() -> None:
    subject = subject_of_kind("gpt_neox")
    few = Texts(text().tokens[:4], text().lengths[:4])
    foreign = Texts(text().tokens + 80, text().lengths)
    for given, reason in ((None, "no held-out text"), (few, "4 documents"), (foreign, "beyond the model's vocabulary")):
        scores = measure(subject, given)
        assert scores.status == "undefined"
        assert reason in scores.reason
        assert bool(scores.score.isnan().all())
