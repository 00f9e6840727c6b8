"""Families of Hugging Face models, each a function from a model to `Weights`; add one to `FAMILIES`.

Nothing else in the engine knows families, and what a description does not cover is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.errors import UnsupportedModel
from ontogeny.models.weights import Activation, Architecture, Block, KVReaders, NormKind, Weights

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
_ROWS_IN_CACHE = 128


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a norm before folding; None: it has none."""

    kind: NormKind
    scale: Float[Tensor, " d_model"] | None
    shift: Float[Tensor, " d_model"] | None

    def fold(
        self, rows: Float[Tensor, "k d_model"], bias: Float[Tensor, " k"] | None, *, reuse: bool = False
    ) -> tuple[Float[Tensor, "d_model k"], Float[Tensor, " k"]]:
        """W' and b' as `weights.py` has them, of a projection as `torch.nn.Linear` stores it.

        A few rows at a time, which stay in a processor's cache: a weight is read and written once. With `reuse` W'
        takes the place of `rows`, so that a model that is not needed any more takes no memory twice.
        """
        shifted = torch.zeros_like(rows[:, 0]) if bias is None else bias.detach().clone()
        if self.scale is None and self.kind == "rms":
            return rows.detach().T, shifted
        folded = rows.detach() if reuse else torch.empty_like(rows)
        size = _ROWS_IN_CACHE if rows.device.type == "cpu" else len(rows)
        for place in range(0, len(rows), size):
            here = slice(place, place + size)
            if self.shift is not None:
                shifted[here] += rows[here] @ self.shift
            part = folded[here]
            if self.scale is not None:
                torch.mul(rows[here], self.scale, out=part)
            elif not reuse:
                part.copy_(rows[here])
            if self.kind == "layer":
                part -= part.mean(dim=1, keepdim=True)
        return folded.T, shifted


def read_weights(model: Any, kv_readers: KVReaders = "head", *, reuse: bool = False) -> Weights:
    """The weights of a Hugging Face causal language model, in its dtype and on its device.

    What needs no folding is the model's own memory.

    Args:
        model: the model.
        kv_readers: with grouped-query attention, who has key and value readers: each head, or each group. Without
            groups both are the same.
        reuse: the model is not needed any more. Its memory is used for the folded weights too, so that they take none
            of their own; it computes nonsense afterwards.

    Raises:
        UnsupportedModel: no description of this family, or an option that the description does not cover.
    """
    require_family(model)
    with torch.no_grad():
        weights = FAMILIES[model.config.model_type](model, reuse)
    return replace(weights, architecture=replace(weights.architecture, kv_readers=kv_readers))


def require_family(model: Any) -> None:
    """Refuse a model whose family is not described.

    Raises:
        UnsupportedModel: it is not.
    """
    family = model.config.model_type
    if family not in FAMILIES:
        raise UnsupportedModel(
            f"Models of type {family!r} are not described yet; there are descriptions of: {', '.join(FAMILIES)}. "
            "Add one in ontogeny/models/families.py."
        )


def _gpt_neox(model: Any, reuse: bool) -> Weights:
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
        by_slot = joint.weight.view(H, 3, d // H, d).transpose(0, 1).reshape(3 * d, d)
        bias = None if joint.bias is None else joint.bias.view(H, 3, d // H).transpose(0, 1).reshape(3 * d)
        dense, mlp = layer.attention.dense, layer.mlp
        blocks.append(
            _block(
                H,
                *first.fold(by_slot, bias, reuse=True),
                bias,
                dense.weight.T,
                dense.bias,
                *second.fold(mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias, reuse=reuse),
                mlp.dense_4h_to_h.weight.T,
                mlp.dense_4h_to_h.bias,
            )
        )
    unembed = _unembed(_layer_norm(base.final_layer_norm), model, reuse)
    return Weights(architecture, base.embed_in.weight.detach(), None, tuple(blocks), *unembed)


def _gpt2(model: Any, reuse: bool) -> Weights:
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
            *_layer_norm(layer.ln_1).fold(layer.attn.c_attn.weight.T, layer.attn.c_attn.bias, reuse=reuse),
            layer.attn.c_attn.bias,
            layer.attn.c_proj.weight,
            layer.attn.c_proj.bias,
            *_layer_norm(layer.ln_2).fold(layer.mlp.c_fc.weight.T, layer.mlp.c_fc.bias, reuse=reuse),
            layer.mlp.c_proj.weight,
            layer.mlp.c_proj.bias,
        )
        for layer in base.h
    ]
    unembed = _unembed(_layer_norm(base.ln_f), model, reuse)
    return Weights(architecture, base.wte.weight.detach(), base.wpe.weight.detach(), tuple(blocks), *unembed)


def _llama(model: Any, reuse: bool) -> Weights:
    """Llama, Qwen2 and OLMo: sequential blocks, full rotary, gated MLP; RMSNorm, or LayerNorm without parameters.

    With grouped-query attention each query head gets a copy of its group's key and value projections. Its own key and
    value readers go with them, 3H head slots a layer as without groups, unless groups are to be the readers
    (`Architecture.kv_readers`).
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
        kv_heads=config.num_key_value_heads if groups > 1 else None,
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
                *norm(layer.input_layernorm).fold(torch.cat(weights), biases, reuse=True),
                biases,
                attention.o_proj.weight.T,
                attention.o_proj.bias,
                *norm(layer.post_attention_layernorm).fold(into, into_bias, reuse=True),
                mlp.down_proj.weight.T,
                mlp.down_proj.bias,
            )
        )
    unembed = _unembed(norm(base.norm), model, reuse)
    return Weights(architecture, base.embed_tokens.weight.detach(), None, tuple(blocks), *unembed)


FAMILIES: dict[str, Callable[[Any, bool], Weights]] = {
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
        out=out.detach(),
        out_bias=nothing if out_bias is None else out_bias.detach(),
        mlp_in=mlp_in,
        mlp_in_bias=mlp_in_bias,
        mlp_out=mlp_out.detach(),
        mlp_out_bias=nothing if mlp_out_bias is None else mlp_out_bias.detach(),
    )


def _unembed(norm: Norm, model: Any, reuse: bool) -> tuple[Tensor, Tensor]:
    rows = model.get_output_embeddings().weight
    tied = rows.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    return norm.fold(rows, None, reuse=reuse and not tied)


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
