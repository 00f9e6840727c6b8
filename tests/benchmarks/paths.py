"""Path patching of all heads into the receivers of the IOI algorithm, as ratios to a Hugging Face forward pass.

Work and unit as in `bench.py`; the receivers are those that the paper found in pythia-160m (METHODS 7.9), scaled to the
shape's layers. A naive loop costs two forward passes a head: 288 at 160m shape.
"""

from __future__ import annotations

import argparse

import torch
from bench import PAIRS, SHAPES, TOKENS, Row, forward, medians, neox, prompts
from rich.console import Console
from rich.table import Table

from ontogeny.core.graph import GraphSpec
from ontogeny.core.roles import Head
from ontogeny.models.subject import subject_of
from ontogeny.patching.path_patching import PathPatcher, head_readers

LIMIT = 80.0
"""Forward passes at 160m shape."""
WORST = "queries of all heads"
"""The most that can be asked: a quarter of an hour at 160m shape."""
NAME_MOVERS: tuple[Head, ...] = ((8, 2), (8, 10))
S_INHIBITION: tuple[Head, ...] = ((6, 6), (7, 2), (7, 9), (8, 9))
LAYERS = 12


def receivers(graph: GraphSpec) -> dict[str, tuple[int, ...]]:
    """By what they are."""

    def here(heads: tuple[Head, ...]) -> list[Head]:
        return sorted({(layer * graph.n_layers // LAYERS, head % graph.n_heads) for layer, head in heads})

    return {
        "the final residual": (graph.logits_reader,),
        "queries of name movers": head_readers(graph, 0, here(NAME_MOVERS)),
        "values of S-inhibition heads": head_readers(graph, 2, here(S_INHIBITION)),
        WORST: head_readers(
            graph, 0, [(layer, head) for layer in range(graph.n_layers) for head in range(graph.n_heads)]
        ),
    }


def rows(shape: str, pairs: int, worst: bool) -> list[Row]:
    """One line a receiver set, the clean and the corrupted run included."""
    model = neox(shape)
    subject, batch = subject_of(model), prompts(0)
    found = []
    for name, readers in receivers(subject.graph).items():
        if name == WORST and not worst:
            continue
        seconds, ratio = medians(
            pairs, lambda r=readers: PathPatcher(subject, batch).patch(r), lambda: forward(model, batch)
        )
        limit = LIMIT if shape == "160m" and name != WORST else None
        found.append(Row(f"all heads into {name}", seconds, "forward", ratio, limit))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="160m")
    parser.add_argument("--pairs", type=int, default=3, help="alternating pairs of runs; medians are shown")
    parser.add_argument("--worst", action="store_true", help="also queries of all heads: a quarter of an hour")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"GPT-NeoX at {options.shape} shape, {PAIRS} pairs of {TOKENS} tokens, float32, one thread")
    for heading in ("work", "seconds", "ratio", "limit", ""):
        table.add_column(heading, justify="left" if heading in ("work", "") else "right")
    for row in rows(options.shape, options.pairs, options.worst):
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        verdict = "" if row.limit is None else ("ok" if row.ratio <= 1.03 * row.limit else "over")
        table.add_row(row.work, f"{row.seconds:.2f}", f"{row.ratio:.2f} {row.unit}", limit, verdict)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
