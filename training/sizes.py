"""The sizes of the small SCAIL-2."""

from __future__ import annotations

from mlx_backend.interface.sizes import ClipConfig, Scail2Config, UMT5Config, VAEConfig
from world.scenes import WORDS

VAE = VAEConfig(dim=16, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=1, temporal_downsample=(False, True, True))
CLIP = ClipConfig(dim=64, num_heads=1, num_layers=2, mlp_dim=128, out_dim=64, patch_size=14, image_size=56)
LETTERS = "▁" + "".join(chr(code) for code in range(33, 127))  # of the tokenizer, beside the words of the world
UMT5 = UMT5Config(
    vocab_size=3 + len(LETTERS) + len(WORDS),
    dim=64,
    dim_attn=64,
    dim_ffn=128,
    num_heads=4,
    num_layers=2,
    num_buckets=32,
)
DIT = Scail2Config(
    dim=256,
    ffn_dim=768,
    freq_dim=64,
    num_heads=4,
    num_layers=5,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=UMT5.dim,
    clip_dim=CLIP.dim,
)
SIDE = 96  # pixels
FRAMES = 9  # of a segment
OVERLAP = 5  # frames that a segment continues from
HELD_OUT = 1_000_000  # seeds below are for judging, seeds from here on for training
