"""Architectures as numbers. A run reads them from tensor shapes and config.json and assumes none.

The published ones stand at the end: what is planned for before there is a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import WeightsError

PATCH = 2  # spatial patch of every Wan DiT; its temporal patch is 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WanConfig:
    """Sizes of a Wan diffusion transformer.

    `in_dim` is the channels that its stem takes: those of the noisy latent and what is known beside them. `clip_dim` is
    the width of the CLIP tokens, 0 without the image branch; `image_positions` how many positions of CLIP tokens the
    model has learnt (`emb_pos`), 0 for none.
    """

    dim: int
    ffn_dim: int
    freq_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    out_dim: int
    text_dim: int
    clip_dim: int = 0
    image_positions: int = 0
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
class Scail2Config(WanConfig):
    """Sizes of SCAIL-2: an image-to-video transformer with two stems more, of `pose_dim` and `mask_dim` channels."""

    pose_dim: int
    mask_dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Sizes of a Wan causal VAE: `dim` at full resolution, times `dim_mult` per stage.

    That of Wan 2.2 has another `decoder_dim` (0: the same), and sees `patch` x `patch` pixels as one.
    """

    dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    decoder_dim: int = 0
    patch: int = 1

    @property
    def stride(self) -> int:
        """Pixels to a row or column of the latent."""
        return self.patch * 2 ** len(self.temporal_downsample)


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

    @property
    def tokens(self) -> int:
        """How many tokens a picture has: its patches and one for the whole."""
        return (self.image_size // self.patch_size) ** 2 + 1


# SCAIL-2 as published (config.json and headers of zai-org/SCAIL-2), whose other parts are Wan 2.1's.
SCAIL2_DIT = Scail2Config(
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
