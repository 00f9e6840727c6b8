"""What the engine knows of a transformer: one description of a block, for every family, and its weights.

A family is a function from a Hugging Face model to `Weights` in the table `FAMILIES`; nothing else in the engine knows
families. The engine's copies have the norms' scale, shift and centring folded in, so that one normalised residual
serves all readers of a block: for LayerNorm ``y = gamma * (x - mean) / sigma + beta`` read by W and b,

    y W + b = xhat W' + b',   xhat = (x - mean) / sigma,   W' = C diag(gamma) W,   b' = b + beta W

where C subtracts the mean over d_model (xhat is centred already; with C the gradient that comes back through W' is
centred too). This changes no number beyond rounding: scores are those of the raw weights (METHODS 1.6, 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.errors import UnsupportedModel
from ontogeny.core.graph import GraphSpec

NormKind = Literal["layer", "rms"]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
OLMO_EPSILON = 1e-5


@dataclass(frozen=True)
class Architecture:
    """The shape of a model and the kind of its blocks."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocab: int
    parallel: bool
    """Attention and MLP read the same residual; otherwise the MLP reads after the attention has written."""
    norm: NormKind
    eps: float
    activation: Activation
    gated: bool
    """The MLP's hidden layer is act(first half) * second half."""
    rotary: int
    """Leading dimensions of each query and key that are rotated (halves paired); 0 for none."""
    rotary_base: float
    context: int
    """Longest prompt in tokens."""

    @property
    def graph(self) -> GraphSpec:
        """Writers, readers and edges."""
        return GraphSpec(self.n_layers, self.n_heads, self.parallel)


@dataclass(frozen=True)
class Block:
    """One block; norms folded in, projections applied from the right."""

    qkv: Float[Tensor, "d_model 3*heads*d_head"]
    """Columns by slot (q, k, v), head, dimension."""
    qkv_bias: Float[Tensor, " 3*heads*d_head"]
    value_bias: Float[Tensor, "heads d_head"]
    """b_V as stored (it is in `qkv_bias` too). A pattern's rows sum to 1, so that it adds the constant b_V W_O to the
    residual stream whatever the head looks at. That belongs to no writer, as b_O does: zero ablation keeps it."""
    out: Float[Tensor, "heads*d_head d_model"]
    out_bias: Float[Tensor, " d_model"]
    """b_O: part of the residual stream that belongs to no writer."""
    mlp_in: Float[Tensor, "d_model hidden"]
    mlp_in_bias: Float[Tensor, " hidden"]
    mlp_out: Float[Tensor, "d_mlp d_model"]
    mlp_out_bias: Float[Tensor, " d_model"]
    """Part of the MLP's output."""


@dataclass(frozen=True)
class Weights:
    """All weights of a model."""

    architecture: Architecture
    embed: Float[Tensor, "vocab d_model"]
    position: Float[Tensor, "context d_model"] | None
    """Learned positions: part of the residual stream that belongs to no writer."""
    blocks: tuple[Block, ...]
    unembed: Float[Tensor, "d_model vocab"]
    unembed_bias: Float[Tensor, " vocab"]


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a norm before folding; None: it has none."""

    kind: NormKind
    scale: Float[Tensor, " d_model"] | None
    shift: Float[Tensor, " d_model"] | None

    def fold(self, weight: Float[Tensor, "d_model k"], bias: Float[Tensor, " k"] | None) -> tuple[Tensor, Tensor]:
        """W' and b' of the module's docstring."""
        folded_bias = torch.zeros_like(weight[0]) if bias is None else bias.clone()
        if self.shift is not None:
            folded_bias = folded_bias + self.shift @ weight
        folded = weight if self.scale is None else self.scale[:, None] * weight
        if self.kind == "layer":
            folded = folded - folded.mean(dim=0, keepdim=True)
        return folded.contiguous(), folded_bias


def read_weights(model: Any) -> Weights:
    """The weights of a Hugging Face causal language model, in its dtype and on its device.

    Raises:
        UnsupportedModel: no description of this family, or an option that the description does not cover.
    """
    family = model.config.model_type
    if family not in FAMILIES:
        raise UnsupportedModel(
            f"Models of type {family!r} are not described yet; there are descriptions of: {', '.join(FAMILIES)}. "
            "Add one in ontogeny/models/weights.py."
        )
    with torch.no_grad():
        return FAMILIES[family](model)


def _gpt_neox(model: Any) -> Weights:
    """GPT-NeoX and Pythia: parallel or sequential residual, two LayerNorms, partial rotary, untied unembedding."""
    config, base = model.config, model.gpt_neox
    H, d = config.num_attention_heads, config.hidden_size
    rope = config.rope_parameters
    _require(rope.get("rope_type", "default") == "default", "gpt_neox", f"rope_type {rope.get('rope_type')!r}")
    architecture = Architecture(
        n_layers=config.num_hidden_layers,
        n_heads=H,
        d_model=d,
        d_head=d // H,
        d_mlp=config.intermediate_size,
        vocab=config.vocab_size,
        parallel=config.use_parallel_residual,
        norm="layer",
        eps=config.layer_norm_eps,
        activation=_activation("gpt_neox", config.hidden_act),
        gated=False,
        rotary=int(d // H * rope.get("partial_rotary_factor", 1.0)),
        rotary_base=float(rope["rope_theta"]),
        context=config.max_position_embeddings,
    )
    blocks = []
    for layer in base.layers:
        first, second = _layer_norm(layer.input_layernorm), _layer_norm(layer.post_attention_layernorm)
        joint = layer.attention.query_key_value
        by_head = joint.weight.view(H, 3, d // H, d).permute(3, 1, 0, 2).reshape(d, 3 * d)
        bias = None if joint.bias is None else joint.bias.view(H, 3, d // H).transpose(0, 1).reshape(3 * d)
        dense, mlp = layer.attention.dense, layer.mlp
        blocks.append(
            _block(
                H,
                *first.fold(by_head, bias),
                bias,
                dense.weight.T,
                dense.bias,
                *second.fold(mlp.dense_h_to_4h.weight.T, mlp.dense_h_to_4h.bias),
                mlp.dense_4h_to_h.weight.T,
                mlp.dense_4h_to_h.bias,
            )
        )
    unembed = _layer_norm(base.final_layer_norm).fold(model.get_output_embeddings().weight.T, None)
    return Weights(architecture, base.embed_in.weight.detach(), None, tuple(blocks), *unembed)


def _gpt2(model: Any) -> Weights:
    """GPT-2: sequential blocks, learned positions, tied unembedding."""
    config, base = model.config, model.transformer
    H, d = config.n_head, config.n_embd
    _require(config.scale_attn_weights, "gpt2", "attention without its scale")
    _require(not config.scale_attn_by_inverse_layer_idx, "gpt2", "scale_attn_by_inverse_layer_idx")
    _require(not config.add_cross_attention, "gpt2", "cross attention")
    architecture = Architecture(
        n_layers=config.n_layer,
        n_heads=H,
        d_model=d,
        d_head=d // H,
        d_mlp=config.n_inner or 4 * d,
        vocab=config.vocab_size,
        parallel=False,
        norm="layer",
        eps=config.layer_norm_epsilon,
        activation=_activation("gpt2", config.activation_function),
        gated=False,
        rotary=0,
        rotary_base=1.0,
        context=config.n_positions,
    )
    blocks = [
        _block(
            H,
            *_layer_norm(layer.ln_1).fold(layer.attn.c_attn.weight, layer.attn.c_attn.bias),
            layer.attn.c_attn.bias,
            layer.attn.c_proj.weight,
            layer.attn.c_proj.bias,
            *_layer_norm(layer.ln_2).fold(layer.mlp.c_fc.weight, layer.mlp.c_fc.bias),
            layer.mlp.c_proj.weight,
            layer.mlp.c_proj.bias,
        )
        for layer in base.h
    ]
    unembed = _layer_norm(base.ln_f).fold(model.get_output_embeddings().weight.T, None)
    return Weights(architecture, base.wte.weight.detach(), base.wpe.weight.detach(), tuple(blocks), *unembed)


def _llama(model: Any) -> Weights:
    """Llama, Qwen2 and OLMo: sequential blocks, full rotary, gated MLP; RMSNorm, or LayerNorm without parameters.

    With grouped-query attention each query head gets its group's key and value projections, and with them its own key
    and value readers: the graph has 3H head slots a layer, as without groups.
    """
    config, base, family = model.config, model.model, model.config.model_type
    H, d = config.num_attention_heads, config.hidden_size
    size = getattr(config, "head_dim", None) or d // H
    groups = H // config.num_key_value_heads
    rope = config.rope_parameters
    _require(rope.get("rope_type", "default") == "default", family, f"rope_type {rope.get('rope_type')!r}")
    _require(getattr(config, "clip_qkv", None) is None, family, "clip_qkv")
    _require(not getattr(config, "use_sliding_window", False), family, "a sliding window")
    norm = _no_norm if family == "olmo" else _rms_norm
    architecture = Architecture(
        n_layers=config.num_hidden_layers,
        n_heads=H,
        d_model=d,
        d_head=size,
        d_mlp=config.intermediate_size,
        vocab=config.vocab_size,
        parallel=False,
        norm=norm(base.norm).kind,
        eps=OLMO_EPSILON if family == "olmo" else config.rms_norm_eps,
        activation=_activation(family, config.hidden_act),
        gated=True,
        rotary=size,
        rotary_base=float(rope["rope_theta"]),
        context=config.max_position_embeddings,
    )

    def for_each_query(weight: Tensor) -> Tensor:
        return weight.view(-1, size, *weight.shape[1:]).repeat_interleave(groups, dim=0).flatten(0, 1)

    blocks = []
    for layer in base.layers:
        attention, mlp = layer.self_attn, layer.mlp
        slots = (attention.q_proj, attention.k_proj, attention.v_proj)
        weights = [slots[0].weight, *(for_each_query(slot.weight) for slot in slots[1:])]
        biases = None
        if slots[0].bias is not None:
            biases = torch.cat([slots[0].bias, *(for_each_query(slot.bias) for slot in slots[1:])])
        into = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        into_bias = None if mlp.gate_proj.bias is None else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
        blocks.append(
            _block(
                H,
                *norm(layer.input_layernorm).fold(torch.cat(weights).T, biases),
                biases,
                attention.o_proj.weight.T,
                attention.o_proj.bias,
                *norm(layer.post_attention_layernorm).fold(into.T, into_bias),
                mlp.down_proj.weight.T,
                mlp.down_proj.bias,
            )
        )
    unembed = norm(base.norm).fold(model.get_output_embeddings().weight.T, None)
    return Weights(architecture, base.embed_tokens.weight.detach(), None, tuple(blocks), *unembed)


FAMILIES: dict[str, Callable[[Any], Weights]] = {
    "gpt_neox": _gpt_neox,
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _llama,
    "olmo": _llama,
}


def _block(
    n_heads: int,
    qkv: Tensor,
    qkv_bias: Tensor,
    stored_bias: Tensor | None,
    out: Tensor,
    out_bias: Tensor | None,
    mlp_in: Tensor,
    mlp_in_bias: Tensor,
    mlp_out: Tensor,
    mlp_out_bias: Tensor | None,
) -> Block:
    nothing = torch.zeros_like(out[0])
    values = (torch.zeros_like(qkv_bias) if stored_bias is None else stored_bias.detach()).view(3, n_heads, -1)[2]
    return Block(
        qkv=qkv,
        qkv_bias=qkv_bias,
        value_bias=values,
        out=out.contiguous(),
        out_bias=nothing if out_bias is None else out_bias.detach(),
        mlp_in=mlp_in,
        mlp_in_bias=mlp_in_bias,
        mlp_out=mlp_out.contiguous(),
        mlp_out_bias=nothing if mlp_out_bias is None else mlp_out_bias.detach(),
    )


def _layer_norm(module: Any) -> Norm:
    return Norm("layer", getattr(module, "weight", None), getattr(module, "bias", None))


def _rms_norm(module: Any) -> Norm:
    return Norm("rms", module.weight, None)


def _no_norm(module: Any) -> Norm:  # noqa: ARG001
    return Norm("layer", None, None)


def _activation(family: str, name: str) -> Activation:
    _require(name in ACTIVATIONS, family, f"the activation {name!r} (there are: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


def _require(condition: bool, family: str, what: str) -> None:
    if not condition:
        raise UnsupportedModel(f"The description of {family} models does not cover {what}.")
