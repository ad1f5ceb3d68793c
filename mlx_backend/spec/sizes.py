"""Architectures as numbers. A run reads them from tensor shapes and config.json and assumes none (weights/detect.py).

The published ones stand at the end: what is planned for before there is a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import WeightsError

PATCH = 2  # spatial patch of every Wan DiT; its temporal patch is 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Sizes of a Wan diffusion transformer with the CLIP image branch, and of SCAIL-2's two extra stems.

    `in_dim`, `pose_dim` and `mask_dim` are the channels of the three stems; `clip_dim` the width of the CLIP tokens.
    """

    dim: int
    ffn_dim: int
    freq_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    pose_dim: int
    mask_dim: int
    out_dim: int
    text_dim: int
    clip_dim: int
    text_len: int = 512
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse sizes that no rotation table or attention can have."""
        if self.dim % self.num_heads:
            raise WeightsError(f"A DiT of width {self.dim} cannot have {self.num_heads} heads: not a divisor.")
        if self.head_dim % 2:
            raise WeightsError(f"A DiT head of {self.head_dim} channels cannot be rotated in pairs.")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Sizes of a Wan 2.1 causal VAE: `dim` at full resolution, times `dim_mult` per stage."""

    dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UMT5Config:
    """Sizes of a UMT5 encoder; `num_buckets` x `num_heads` is the shape of each layer's position bias."""

    vocab_size: int
    dim: int
    dim_attn: int
    dim_ffn: int
    num_heads: int
    num_layers: int
    num_buckets: int
    max_distance: int = 128
    eps: float = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """Sizes of a CLIP vision transformer; `image_size` in pixels, a square."""

    dim: int
    num_heads: int
    num_layers: int
    mlp_dim: int
    out_dim: int
    patch_size: int
    image_size: int
    eps: float = 1e-5


# SCAIL-2 as published (config.json and headers of zai-org/SCAIL-2), whose other parts are Wan 2.1's.
SCAIL2_DIT = DiTConfig(
    dim=5120,
    ffn_dim=13824,
    freq_dim=256,
    num_heads=40,
    num_layers=40,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=4096,
    clip_dim=1280,
)
SCAIL2_VAE = VAEConfig(
    dim=96, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True)
)
SCAIL2_UMT5 = UMT5Config(
    vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24, num_buckets=32
)
SCAIL2_CLIP = ClipConfig(
    dim=1280, num_heads=16, num_layers=32, mlp_dim=5120, out_dim=1024, patch_size=14, image_size=224
)
