"""FLOPs of the text encoder and of the CLIP tower: their products, which are all that counts."""

from __future__ import annotations

from collections.abc import Mapping

from ..interface.sizes import ClipConfig, UMT5Config
from .storage import Matrix
from .weights import weights


def text_flops(config: UMT5Config, tokens: int) -> int:
    """Return the FLOPs of encoding a prompt of so many tokens."""
    made = weights(config)
    return made.blocks * (2 * tokens * _numbers(made.matrices) + 4 * tokens**2 * config.dim_attn)


def clip_flops(config: ClipConfig) -> int:
    """Return the FLOPs of encoding one picture: the last layer is not used."""
    made, tokens = weights(config), config.tokens
    stem = 2 * (tokens - 1) * 3 * config.patch_size**2 * config.dim
    return stem + (made.blocks - 1) * (2 * tokens * _numbers(made.matrices) + 4 * tokens**2 * config.dim)


def _numbers(matrices: Mapping[str, Matrix]) -> int:
    return sum(outputs * inputs for outputs, inputs in matrices.values())
