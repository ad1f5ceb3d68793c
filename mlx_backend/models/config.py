"""The sizes of the networks, which live in `spec` because planning needs them where there is no MLX."""

from ..spec.sizes import PATCH, ClipConfig, DiTConfig, UMT5Config, VAEConfig

__all__ = ["PATCH", "ClipConfig", "DiTConfig", "UMT5Config", "VAEConfig"]
