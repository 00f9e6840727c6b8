"""What the engine knows of a transformer: one description of a block, for every family, and its weights.

Families of models are read in `families.py`; nothing else in the engine knows them. The engine's copies have the
norms' scale, shift and centring folded in, so that one normalised residual serves all readers of a block: for LayerNorm
``y = gamma * (x - mean) / sigma + beta`` read by W and b,

    y W + b = xhat W' + b',   xhat = (x - mean) / sigma,   W' = C diag(gamma) W,   b' = b + beta W

where C subtracts the mean over d_model (xhat is centred already; with C the gradient that comes back through W' is
centred too). This changes no number beyond rounding: scores are those of the raw weights (METHODS 1.6, 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ontogeny.core.graph import GraphSpec

NormKind = Literal["layer", "rms"]
KVReaders = Literal["head", "group"]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]


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
    kv_heads: int | None = None
    """Key and value projections, if groups of heads share them; the engine's copies are a head's own nevertheless."""
    kv_readers: KVReaders = "head"
    """With groups: whether every head has its own key and value readers, or its group has them."""

    @property
    def graph(self) -> GraphSpec:
        """Writers, readers and edges."""
        shared = self.kv_heads if self.kv_readers == "group" else None
        return GraphSpec(self.n_layers, self.n_heads, self.parallel, shared)


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
