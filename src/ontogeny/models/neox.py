"""GPT-NeoX as training needs it: shape, initial weights and a forward pass, on Hugging Face's parameter names.

The stock class would do, at a price: it cannot leave positions out of the unembedding, and its masks and caches cost as
much as the arithmetic of models this small. A test holds the forward pass against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.params import ScaleParams

Parameters = dict[str, Tensor]
ROTARY_BASE = 10000.0
EPSILON = 1e-5


@dataclass(frozen=True)
class NeoxConfig:
    """Shape of a GPT-NeoX model."""

    layers: int
    heads: int
    d_model: int
    vocabulary: int
    context: int
    rotary: float = 0.25
    """Share of each head that turns with position; the default is Pythia's."""

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.heads

    def to_json(self) -> dict[str, object]:
        """The config.json that `AutoConfig` reads."""
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "hidden_act": "gelu",
            "hidden_dropout": 0.0,
            "hidden_size": self.d_model,
            "intermediate_size": 4 * self.d_model,
            "layer_norm_eps": EPSILON,
            "max_position_embeddings": self.context,
            "model_type": "gpt_neox",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "rope_parameters": {
                "partial_rotary_factor": self.rotary,
                "rope_theta": ROTARY_BASE,
                "rope_type": "default",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "use_parallel_residual": True,
            "vocab_size": self.vocabulary,
        }


def neox_config(scale: ScaleParams, context: int, vocabulary: int, rotary: float) -> NeoxConfig:
    """The model of a scale."""
    return NeoxConfig(scale.layers, scale.heads, scale.d_model, vocabulary, context, rotary)


def initial_parameters(config: NeoxConfig, seed: int) -> Parameters:
    """As Pythia: normal with variance 2/(5 d), the matrices that write to the residual with 2/(L sqrt(d))."""
    generator = torch.Generator().manual_seed(seed)
    d = config.d_model
    small, writing = math.sqrt(2 / (5 * d)), 2 / (config.layers * math.sqrt(d))

    def normal(*shape: int, std: float = small) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    parameters = {"gpt_neox.embed_in.weight": normal(config.vocabulary, d)}
    for layer in range(config.layers):
        at = f"gpt_neox.layers.{layer}."
        parameters |= {
            at + "input_layernorm.weight": torch.ones(d),
            at + "input_layernorm.bias": torch.zeros(d),
            at + "post_attention_layernorm.weight": torch.ones(d),
            at + "post_attention_layernorm.bias": torch.zeros(d),
            at + "attention.query_key_value.weight": normal(3 * d, d),
            at + "attention.query_key_value.bias": torch.zeros(3 * d),
            at + "attention.dense.weight": normal(d, d, std=writing),
            at + "attention.dense.bias": torch.zeros(d),
            at + "mlp.dense_h_to_4h.weight": normal(4 * d, d),
            at + "mlp.dense_h_to_4h.bias": torch.zeros(4 * d),
            at + "mlp.dense_4h_to_h.weight": normal(d, 4 * d, std=writing),
            at + "mlp.dense_4h_to_h.bias": torch.zeros(d),
        }
    return parameters | {
        "gpt_neox.final_layer_norm.weight": torch.ones(d),
        "gpt_neox.final_layer_norm.bias": torch.zeros(d),
        "embed_out.weight": normal(config.vocabulary, d),
    }


def logits_at(
    parameters: Parameters,
    config: NeoxConfig,
    inputs: Int[Tensor, "rows tokens"],
    mask: Bool[Tensor, "rows 1 tokens tokens"],
    at_positions: Bool[Tensor, "rows tokens"],
) -> Float[Tensor, "positions vocabulary"]:
    """Logits at the chosen positions; rotary angles depend on distances only, so documents need no positions of their
    own.
    """
    d = config.d_model
    cos, sin = _rotary(inputs.shape[1], config, inputs.device)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (d,), parameters[name + ".weight"], parameters[name + ".bias"], EPSILON)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, parameters[name + ".weight"], parameters[name + ".bias"])

    x = F.embedding(inputs, parameters["gpt_neox.embed_in.weight"])
    for layer in range(config.layers):
        at = f"gpt_neox.layers.{layer}."
        joint = linear(norm(x, at + "input_layernorm"), at + "attention.query_key_value")
        split = joint.view(*inputs.shape, config.heads, 3, config.d_head).permute(3, 0, 2, 1, 4)
        q, k, v = split.unbind(0)
        mixed = F.scaled_dot_product_attention(_turn(q, cos, sin), _turn(k, cos, sin), v, attn_mask=mask)
        heads = linear(mixed.transpose(1, 2).reshape(x.shape), at + "attention.dense")
        hidden = F.gelu(linear(norm(x, at + "post_attention_layernorm"), at + "mlp.dense_h_to_4h"))
        x = x + heads + linear(hidden, at + "mlp.dense_4h_to_h")
    return F.linear(norm(x[at_positions], "gpt_neox.final_layer_norm"), parameters["embed_out.weight"])


def _rotary(tokens: int, config: NeoxConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    width = int(config.d_head * config.rotary)
    rates = 1.0 / ROTARY_BASE ** (torch.arange(0, width, 2, device=device).float() / width)
    angles = torch.outer(torch.arange(tokens, device=device).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def _turn(x: Float[Tensor, "rows heads tokens d_head"], cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of each head's first dimensions, halves paired as GPT-NeoX pairs them."""
    width = cos.shape[-1]
    low, high, rest = x.split([width // 2, width // 2, x.shape[-1] - width], -1)
    c, s = cos[:, : width // 2], sin[:, : width // 2]
    return torch.cat([low * c - high * s, high * c + low * s, rest], -1)
