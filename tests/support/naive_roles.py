"""Head roles word for word from METHODS 6 on Hugging Face's own modules: one head, one token, one vector at a time.

Shares no code with the package but the choice of what is measured (random sequences, lists, halves of the text).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ontogeny.models.subject import Subject, subject_of
from support import hand_set
from support.engine import shake

SIZES: dict[str, Any] = {
    "vocab_size": hand_set.T + 3,  # more than the tokenizer has, as Pythia
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
}


def _config(kind: str) -> Any:
    import transformers

    if kind.startswith("gpt_neox"):
        return transformers.GPTNeoXConfig(
            **SIZES, rotary_pct=0.5, tie_word_embeddings=False, use_parallel_residual=kind == "gpt_neox"
        )
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=SIZES["vocab_size"], n_embd=24, n_layer=3, n_head=4, n_inner=20, n_positions=24,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    more = {"num_key_value_heads": 4 if kind == "olmo" else 2, "tie_word_embeddings": False}
    name = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "olmo": "OlmoConfig"}[kind]
    return getattr(transformers, name)(**SIZES, **more)


KINDS = ("gpt_neox", "gpt_neox sequential", "gpt2", "llama", "qwen2", "olmo")


@lru_cache
def model_of(kind: str) -> Any:
    """A random model whose attention patterns Hugging Face gives out."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(_config(kind), attn_implementation="eager").to(torch.float64)
    model = model.eval().requires_grad_(False)
    shake(model)
    return model


@lru_cache
def subject_of_kind(kind: str) -> Subject:
    return subject_of(model_of(kind), tokenizer=hand_set.tokenizer())


@dataclass(frozen=True)
class HeadParts:
    """What METHODS 6.0 needs of one head."""

    norm: Callable[[Tensor], Tensor]
    value: Tensor
    """W_V ``[d_model, d_head]``."""
    bias: Tensor
    out: Tensor
    """W_O ``[d_head, d_model]``."""


def head_parts(model: Any, layer: int, head: int) -> HeadParts:
    config = model.config
    kind, d, H = config.model_type, config.hidden_size, config.num_attention_heads
    size = d // H
    here = slice(head * size, (head + 1) * size)
    if kind == "gpt_neox":
        block = model.gpt_neox.layers[layer]
        rows = slice((3 * head + 2) * size, (3 * head + 3) * size)
        joint = block.attention.query_key_value
        return HeadParts(
            block.input_layernorm, joint.weight[rows].T, joint.bias[rows], block.attention.dense.weight[:, here].T
        )
    if kind == "gpt2":
        block = model.transformer.h[layer]
        columns = slice(2 * d + head * size, 2 * d + (head + 1) * size)
        joint = block.attn.c_attn
        return HeadParts(block.ln_1, joint.weight[:, columns], joint.bias[columns], block.attn.c_proj.weight[here])
    block = model.model.layers[layer]
    group = head // (H // config.num_key_value_heads)
    rows = slice(group * size, (group + 1) * size)
    v = block.self_attn.v_proj
    bias = torch.zeros(size, dtype=torch.float64) if v.bias is None else v.bias[rows]
    return HeadParts(block.input_layernorm, v.weight[rows].T, bias, block.self_attn.o_proj.weight[:, here].T)


def final_norm(model: Any) -> Any:
    kind = model.config.model_type
    return {"gpt_neox": lambda: model.gpt_neox.final_layer_norm, "gpt2": lambda: model.transformer.ln_f}.get(
        kind, lambda: model.model.norm
    )()


def onto_logits(model: Any, written: Tensor) -> Tensor:
    """Centre (LayerNorm only), x gamma_final, W_U: no b_U, no beta_final, no statistics."""
    norm = final_norm(model)
    if model.config.model_type not in ("llama", "qwen2"):
        written = written - written.mean(dim=-1, keepdim=True)
    gamma = getattr(norm, "weight", None)
    return (written if gamma is None else written * gamma) @ model.get_output_embeddings().weight.T


def ov_logits(model: Any, layer: int, head: int, x: Tensor) -> Tensor:
    """METHODS 6.0 on one vector."""
    parts = head_parts(model, layer, head)
    return onto_logits(model, (parts.norm(x) @ parts.value + parts.bias) @ parts.out)


def first_mlp(model: Any, token: int) -> Tensor:
    """MLP0(LN2_0(W_E[t]))."""
    x = model.get_input_embeddings().weight[token]
    kind = model.config.model_type
    if kind == "gpt_neox":
        block = model.gpt_neox.layers[0]
        return block.mlp(block.post_attention_layernorm(x))
    if kind == "gpt2":
        block = model.transformer.h[0]
        return block.mlp(block.ln_2(x))
    block = model.model.layers[0]
    return block.mlp(block.post_attention_layernorm(x))


def all_heads(model: Any) -> list[tuple[int, int]]:
    return [(i, h) for i in range(model.config.num_hidden_layers) for h in range(model.config.num_attention_heads)]


def over_heads(model: Any, score: Callable[[int, int], float]) -> Tensor:
    """``[layers, heads]`` of a function of one head."""
    values = [score(layer, head) for layer, head in all_heads(model)]
    return torch.tensor(values, dtype=torch.float64).view(model.config.num_hidden_layers, -1)


def final_scale(model: Any, x: Tensor) -> float:
    """Sigma of the final norm."""
    norm = final_norm(model)
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or 1e-5
    centred = x if model.config.model_type in ("llama", "qwen2") else x - x.mean()
    return float((centred.square().mean() + eps).sqrt())
