"""FLOPs of the text encoder and of the CLIP tower: their products, which are all that counts."""

from __future__ import annotations

from .sizes import ClipConfig, UMT5Config
from .storage import clip_layer_matrices, clip_tokens, umt5_layer_matrices


def text_flops(config: UMT5Config, tokens: int) -> int:
    """Return the FLOPs of encoding a prompt of so many tokens."""
    linear = 2 * tokens * sum(a * b for a, b in umt5_layer_matrices(config))
    return config.num_layers * (linear + 4 * tokens**2 * config.dim_attn)


def clip_flops(config: ClipConfig) -> int:
    """Return the FLOPs of encoding one picture: the last layer is not used."""
    tokens = clip_tokens(config)
    linear = 2 * tokens * sum(a * b for a, b in clip_layer_matrices(config))
    stem = 2 * (tokens - 1) * 3 * config.patch_size**2 * config.dim
    return stem + (config.num_layers - 1) * (linear + 4 * tokens**2 * config.dim)
