"""What a pass of the transformer sees beside the noisy latent and the time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx

from .attention import Context


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Latent frames that are clean already: where `mask` [1, T, H or 1, W or 1] is true, the latent is `clean`."""

    mask: mx.array
    clean: mx.array  # [C, T, H, W]

    def __call__(self, x: mx.array) -> mx.array:
        """Return the latent x [C, T, H, W] with the known frames put in."""
        return mx.where(self.mask, self.clean, x)

    def channels(self, count: int) -> mx.array:
        """Return [count, T, H, W], float32: 1 on what is known, else 0, as models see it beside the latent."""
        return mx.broadcast_to(self.mask.astype(mx.float32), (count, *self.clean.shape[1:]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditioning:
    """All that conditions the passes over one segment, embedded once; members of the family leave out what they lack.

    `context`: text and picture for cross-attention. `positions`: cos and sin [L, 1, head_dim/2] of all tokens.
    `channels` [c, T, H, W] join the latent's. `before` and `after`: tokens [n, dim] that stand around the video's.
    `bias` [video tokens or 1, dim] is added to the video's tokens. The first `clean` tokens of the video are no noise
    any more, and see the time 0.
    """

    context: Context
    positions: tuple[mx.array, mx.array]
    channels: mx.array | None = None
    before: mx.array | None = None
    after: mx.array | None = None
    bias: mx.array | None = None
    clean: int = 0

    def under(self, context: Context) -> Conditioning:
        """Return the same with another text and picture."""
        return replace(self, context=context)
