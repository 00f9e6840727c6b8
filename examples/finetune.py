"""Train a checkpoint of the ladder further, leaving checkpoints as the Hugging Face Trainer does.

    python examples/finetune.py data/checkpoints/small-s0/step2048 data/corpus/held_out.txt runs/small --without gave
    ontogeny study --params examples/finetuned.yaml

The first line fine-tunes on documents in which nobody gives anything, so that nothing asks for IOI any more; the second
follows the run: what becomes of each circuit is data/figures/drift.png of the study. Any model and any text file, a
document a line, will do, and so will a run of your own: the study only needs its folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def main() -> None:
    """Fine-tune, and save at the steps 1, 2, 4, ... and the last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the base model")
    parser.add_argument("text", type=Path, help="a text file, a document a line")
    parser.add_argument("out", type=Path, help="folder for checkpoint-N")
    parser.add_argument("--without", help="leave out documents that hold this word")
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16, help="documents in a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="AdamW's learning rate")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(arguments.model / "tokenizer.json"))
    documents = [line for line in arguments.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    if arguments.without is not None:
        documents = [document for document in documents if arguments.without not in document.split()]
    finetune(model, tokenizer, documents, arguments)


def finetune(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, documents: list[str], arguments: argparse.Namespace
) -> None:
    """An ordinary loop: AdamW, cross entropy of the next token."""
    order = random.Random(arguments.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=0.0)
    due = {2**i for i in range(arguments.steps.bit_length())} | {arguments.steps}
    for step in range(1, arguments.steps + 1):
        tokens, targets = batch(tokenizer, order.sample(documents, arguments.rows))
        loss = model(input_ids=tokens, labels=targets).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step in due:
            folder = arguments.out / f"checkpoint-{step}"
            model.save_pretrained(folder)
            shutil.copyfile(arguments.model / "tokenizer.json", folder / "tokenizer.json")
            print(f"step {step}: loss {float(loss):.3f}, saved {folder}")  # noqa: T201


def batch(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> tuple[Tensor, Tensor]:
    """Rows of tokens, padded on the right, and what each is to predict (-100: nothing)."""
    rows = [tokenizer.encode(document, add_special_tokens=False)[:128] for document in documents]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    return tokens, targets


if __name__ == "__main__":
    main()
