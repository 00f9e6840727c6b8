"""Head roles at a Pythia shape: what each costs beside work that it cannot do without.

    attention roles   a Hugging Face forward pass over the same sequences, logits everywhere (losses are asked)
    successor, copy   unembedding 3 x pairs x heads vectors over the whole vocabulary
    copy suppression  a Hugging Face forward pass over the scored text, logits everywhere; the limit is in seconds

Weights are random; names and lists are tokens of a small tokenizer, the vocabulary is Pythia's. Seconds: `bench.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench import PAIRS, SHAPES, VOCAB, Row, medians, neox
from rich.console import Console
from rich.table import Table

from ontogeny.components import ROLES, Material, Texts
from ontogeny.core.pairs import TaskDataset
from ontogeny.core.roles import RoleScores
from ontogeny.models.subject import Subject, subject_of
from ontogeny.params import AttentionParams, RolesParams
from ontogeny.tasks import get_task
from ontogeny.tasks.corpus import lexicon
from ontogeny.tasks.tokenizer import FileTokenizer, train_tokenizer

SEQUENCES, RUN = 12, 100
"""Of the attention roles: cost is proportional to sequences, so that fewer than the default show the ratio."""
DOCUMENTS, LENGTH = 32, 125
"""Half of them are scored: 2,000 tokens."""
PARAMS = RolesParams(attention=AttentionParams(sequences=SEQUENCES, longest=RUN))
ATTENTION = ("induction", "previous_token", "duplicate_token")


def words() -> FileTokenizer:
    """Names and ordered lists as single tokens."""
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer([], lexicon(), Path(folder))


def text() -> Texts:
    """Random documents of one length."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB, (DOCUMENTS, LENGTH), generator=generator)
    return Texts(tokens, torch.full((DOCUMENTS,), LENGTH))


def everywhere(model: Any, tokens: torch.Tensor) -> None:
    """A Hugging Face forward pass with logits at every position, some rows at a time."""
    with torch.no_grad():
        for part in tokens.split(6):
            model(part, use_cache=False)


def score(subject: Subject, names: tuple[str, ...], material: Material) -> dict[str, RoleScores]:
    """These roles, one after the other."""
    found: dict[str, RoleScores] = {}
    for name in names:
        found[name] = ROLES[name].score(subject, replace(material, roles=found), PARAMS)
        assert found[name].status == "measured", found[name].reason
    return found


def unembed(subject: Subject, vectors: int) -> None:
    """What copy scores would cost without a short cut: every vector of every head over the whole vocabulary."""
    a = subject.architecture
    x = torch.randn(vectors, a.d_model)
    for _ in range(a.n_layers * a.n_heads):
        x @ subject.weights.unembed


def rows(shape: str, pairs: int) -> list[Row]:
    """All lines for one shape."""
    model = neox(shape)
    subject = replace(subject_of(model), tokenizer=words())
    assert subject.tokenizer is not None
    ioi: TaskDataset = get_task("ioi").generate(subject.tokenizer, PAIRS)
    large, found = shape == "160m", []
    sequences = torch.randint(VOCAB, (SEQUENCES, 2 * RUN))
    both = medians(pairs, lambda: score(subject, ATTENTION, Material()), lambda: everywhere(model, sequences))
    found.append(Row("attention roles", both[0], "forward", both[1], 1.2))
    names = ("successor", "name_mover", "negative_name_mover")
    given = Material(ioi=ioi)
    both = medians(pairs, lambda: score(subject, names, given), lambda: unembed(subject, 3 * PAIRS))
    found.append(Row("successor and copy scores", both[0], "unembeddings", both[1], 0.8 if large else None))
    given = Material(text=text())
    half = text().tokens[: DOCUMENTS // 2]
    both = medians(pairs, lambda: score(subject, ("copy_suppression",), given), lambda: everywhere(model, half))
    found.append(Row("copy suppression, 2,000 tokens", both[0], "forward", both[1], None))
    if large:
        found.append(Row("... against three minutes", both[0], "x 180 s", both[0] / 180.0, 1.0))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="160m")
    parser.add_argument("--pairs", type=int, default=3, help="alternating pairs of runs; medians are shown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"GPT-NeoX at {options.shape} shape, {PAIRS} IOI pairs, float32, one thread")
    for heading in ("work", "seconds", "ratio", "limit", ""):
        table.add_column(heading, justify="left" if heading in ("work", "") else "right")
    for row in rows(options.shape, options.pairs):
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        verdict = "" if row.limit is None else ("ok" if row.ratio <= 1.03 * row.limit else "over")
        table.add_row(row.work, f"{row.seconds:.2f}", f"{row.ratio:.2f} {row.unit}", limit, verdict)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
