"""Where tokens lie: right-aligned columns, masks, and the angles of rotary embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.weights import Architecture


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch lie: right-aligned columns, and the window that runs cover."""

    positions: Int[Tensor, "pairs tokens"]
    """Position of each column in its own prompt; 0 for padding."""
    padding: Int[Tensor, " pairs"]
    """Columns of padding on the left."""
    start: int
    """First column of the window."""
    dtype: torch.dtype

    @property
    def tokens(self) -> int:
        """Columns."""
        return self.positions.shape[1]

    @property
    def window(self) -> int:
        """Columns from `start` on."""
        return self.tokens - self.start

    def columns(self, first: int, last: int) -> Float[Tensor, "pairs_or_1 1 queries keys"]:
        """Additive mask of the queries in columns [first, last) over the keys in columns [0, last).

        A padded column sees itself alone, so that nothing becomes NaN; nobody sees it.
        """
        device = self.positions.device
        query = torch.arange(first, last, device=device)[:, None]
        key = torch.arange(last, device=device)[None, :]
        padding = self.padding if bool((self.padding > 0).any()) else self.padding[:1] * 0
        seen = (key <= query) & ((key >= padding[:, None, None]) | (key == query))
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=device)
        return mask.masked_fill_(~seen, float("-inf"))[:, None]


def right_align(
    tokens: Int[Tensor, "pairs tokens"], lengths: Int[Tensor, " pairs"]
) -> tuple[Int[Tensor, "pairs columns"], Int[Tensor, "pairs columns"], Int[Tensor, " pairs"]]:
    """Right-padded tokens moved to the right; their positions, and the padding now on the left of each."""
    columns = int(lengths.max())
    padding = columns - lengths
    positions = torch.arange(columns, device=tokens.device)[None, :] - padding[:, None]
    aligned = tokens.gather(1, positions.clamp(min=0))
    return aligned.masked_fill(positions < 0, 0), positions.clamp(min=0), padding


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines for the window's columns, ``[pairs_or_1, 1, window, rotary / 2]``."""

    cos: Tensor
    sin: Tensor

    def of(self, pairs: slice) -> Rotary:
        """The angles of some pairs."""
        return self if len(self.cos) == 1 else Rotary(self.cos[pairs], self.sin[pairs])

    def rotate(self, x: Float[Tensor, "pairs heads columns d_head"], *, back: bool = False) -> None:
        """Rotate the leading dimensions of `x` in place; columns are the last ones of the window."""
        half = self.cos.shape[-1]
        if half == 0:
            return
        cos, sin = self.cos[:, :, -x.shape[2] :], self.sin[:, :, -x.shape[2] :]
        a, b = x[..., :half], x[..., half : 2 * half]
        sign = -1.0 if back else 1.0
        a_new = (a * cos).addcmul_(b, sin, value=-sign)
        b.mul_(cos).addcmul_(a, sin, value=sign)
        a.copy_(a_new)


def rotary_of(architecture: Architecture, positions: Int[Tensor, "pairs window"], dtype: torch.dtype) -> Rotary:
    """Angles position / base^(2i / rotary), made in float64 on the host: not every device has it."""
    if positions.shape[0] > 1 and bool((positions == positions[:1]).all()):
        positions = positions[:1]
    dims = torch.arange(0, architecture.rotary, 2, dtype=torch.float64)
    frequency = architecture.rotary_base ** (-dims / max(architecture.rotary, 1))
    angles = positions.cpu()[:, None, :, None].to(torch.float64) * frequency
    return Rotary(angles.cos().to(dtype).to(positions.device), angles.sin().to(dtype).to(positions.device))
