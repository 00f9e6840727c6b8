"""Repositories of GPT-NeoX models with random weights, laid out as Pythia's are on the hub."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ontogeny.models.neox import NeoxConfig, initial_parameters
from support.hub import Hub

PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "pythia" / "20B_tokenizer.json"
SHAPES = {
    "tiny": NeoxConfig(2, 2, 16, 50304, 256),
    "14m": NeoxConfig(6, 4, 128, 50304, 2048),
    "70m": NeoxConfig(6, 8, 512, 50304, 2048),
    "160m": NeoxConfig(12, 12, 768, 50304, 2048),
}


def pythia_tokenizer() -> Path:
    """The real tokenizer of Pythia, or a skipped test."""
    if not PYTHIA_TOKENIZER.exists():
        pytest.skip(f"{PYTHIA_TOKENIZER.name} lies beside the project only where it is developed")
    return PYTHIA_TOKENIZER


def old_config(shape: NeoxConfig) -> dict[str, object]:
    """A config.json as Pythia's repositories have it, of transformers 4.24."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": shape.d_model,
        "initializer_range": 0.02,
        "intermediate_size": 4 * shape.d_model,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": shape.context,
        "model_type": "gpt_neox",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.24.0",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": shape.vocabulary,
    }


def write_model(folder: Path, shape: NeoxConfig, seed: int, tokenizer: Path | None, *, head: str = "embed_out") -> Path:
    """A checkpoint in float16; its norms and biases are random too, and its logits far from uniform."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1000 + seed)
    tensors = {}
    for name, value in initial_parameters(shape, seed).items():
        if value.dim() == 1:
            value = value + 0.1 * torch.randn(value.shape, generator=generator)
        elif name.startswith("embed_out"):
            value = 10 * value
        tensors[name.replace("embed_out", head)] = value.half().contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(old_config(shape), indent=2) + "\n")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return folder


def publish(
    hub: Hub, name: str, root: Path, shape: str, steps: Sequence[int], tokenizer: Path, *, revision: str = "step{}"
) -> None:
    """A repository with a branch a step, and `main` as the last of them."""
    repository = hub.repository(name)
    for step in steps:
        folder = write_model(root / name / f"step{step}", SHAPES[shape], step, tokenizer)
        repository.commit(revision.format(step), folder)
    repository.branches["main"] = repository.branches[revision.format(steps[-1])]
