"""The probe sets of METHODS 11.2 and what is read off them."""

from pathlib import Path

import pytest
import torch

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.tasks import words
from ontogeny.tasks.ioi import names_held_out
from ontogeny.tasks.probes import Probe, probe_result, probe_sets
from ontogeny.tasks.tokenizer import FileTokenizer


@pytest.fixture(scope="module")
def tokenizer(corpus_dir: Path) -> FileTokenizer:
    return FileTokenizer(corpus_dir / "tokenizer" / "tokenizer.json")


def test_who_is_named_how_often(tokenizer: FileTokenizer) -> None:
    sets = probe_sets(tokenizer, size=40)
    assert set(sets) == {"standard", "bystander", "nearest", "abc"}
    for kind, probes in sets.items():
        assert len(probes) == 40
        for probe in probes:
            counts = [probe.prompt.count(name) for name in (probe.io, probe.s)]
            assert counts == ([1, 1] if kind == "abc" else [1, 2])
            named = [name for name in words.NAMES if f" {name}" in probe.prompt]
            assert len(named) == (3 if probe.bystander else 2)
            assert all(names_held_out(a, b) for a in named for b in named if a < b)
            nearest = max(named, key=lambda name: probe.prompt.rindex(name))
            expected = {"standard": probe.s, "bystander": probe.bystander, "nearest": probe.io, "abc": probe.bystander}
            assert " " + nearest == expected[kind]


def test_result_is_read_off_the_logits(tokenizer: FileTokenizer) -> None:
    probes = tuple(Probe("", f" {io}", f" {s}", " Lisa") for io, s in (("Mary", "John"), ("John", "Mary")))
    logits = torch.full((2, len(tokenizer.ids())), -1e9)
    mary, john, lisa = (tokenizer.encode(f" {name}")[0] for name in ("Mary", "John", "Lisa"))
    logits[:, mary], logits[:, john], logits[:, lisa] = 3.0, 1.0, 2.0
    shares = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64).softmax(0)
    result = probe_result(logits, probes, tokenizer)
    assert result.accuracy == 0.5
    assert result.io == pytest.approx(float(shares[0] + shares[1]) / 2)
    assert result.s == pytest.approx(float(shares[0] + shares[1]) / 2)
    assert result.bystander == pytest.approx(float(shares[2]))
    without = tuple(Probe(p.prompt, p.io, p.s, None) for p in probes)
    assert probe_result(logits, without, tokenizer).bystander is None


def test_a_tokenizer_without_names_is_refused() -> None:
    class Letters:
        digest = "letters"

        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

        def decode(self, ids: list[int]) -> str:
            return "".join(map(chr, ids))

    with pytest.raises(ImpossibleRequest, match="0 of 40"):
        probe_sets(Letters())
