"""What a set of tensors is, and with which sizes: from names and shapes, never from file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models.config import PATCH, ClipConfig, DiTConfig, UMT5Config, VAEConfig
from ..spec.errors import WeightsError
from .formats import TensorInfo

WAN_HEAD_DIM = 128
CLIP_HEAD_DIM = 80

Tensors = Mapping[str, TensorInfo]

# A tensor that gives a kind of file away, and what the kind is called; the first match counts.
SIGNATURES = (
    ("patch_embedding_mask.weight", "a SCAIL-2 diffusion transformer"),
    ("patch_embedding_pose.weight", "a SCAIL-1 (preview) diffusion transformer"),
    ("vace_patch_embedding.weight", "a Wan VACE diffusion transformer"),
    ("img_emb.proj.0.weight", "a Wan image-to-video diffusion transformer"),
    ("head.modulation", "a Wan diffusion transformer (text-to-video or Wan 2.2)"),
    ("decoder.upsamples.0.upsamples.0.residual.2.weight", "a Wan 2.2 VAE"),
    ("decoder.middle.0.residual.2.weight", "a Wan 2.1 VAE"),
    ("blocks.0.pos_embedding.embedding.weight", "a UMT5 text encoder"),
    ("transformer.0.attn.to_qkv.weight", "a CLIP visual tower"),
)
COMPONENT_KINDS = {
    "dit": "a SCAIL-2 diffusion transformer",
    "vae": "a Wan 2.1 VAE",
    "t5_encoder": "a UMT5 text encoder",
    "clip": "a CLIP visual tower",
}


def identify(tensors: Tensors) -> str:
    """Name what the tensors are."""
    for name, kind in SIGNATURES:
        if name in tensors:
            return kind
    return "a file of tensors that this program does not know"


def check_component(path: Path, component: str, tensors: Tensors) -> None:
    """Raise WeightsError unless the tensors are those of `component` ("dit", "vae", "t5_encoder", "clip")."""
    found, wanted = identify(tensors), COMPONENT_KINDS[component]
    if found != wanted:
        example = next(iter(sorted(tensors)), "none")
        raise WeightsError(
            f"{path} is {found} ({len(tensors)} tensors, the first is '{example}'), but {wanted} is needed here: "
            "choose the matching file or snapshot."
        )


def dit_config(path: Path, tensors: Tensors, settings: Mapping[str, Any]) -> DiTConfig:
    """Read the sizes of a SCAIL-2 DiT; `settings` is config.json, whose numbers must agree with the shapes."""
    shape = _shapes(path, tensors)
    dim = shape("head.modulation")[-1]
    found = {
        "dim": dim,
        "ffn_dim": shape("blocks.0.ffn.0.bias")[0],
        "freq_dim": shape("time_embedding.0.weight")[1],
        "num_layers": _count(tensors, r"blocks\.(\d+)\."),
        "in_dim": shape("patch_embedding.weight")[1],
        "mask_dim": shape("patch_embedding_mask.weight")[1],
        "out_dim": shape("head.head.bias")[0] // PATCH**2,
    }
    for name, value in found.items():
        if settings.get(name, value) != value:
            raise WeightsError(
                f"config.json beside {path} says {name} = {settings[name]}, but the tensors have {value}: "
                "the two are of different models, download the snapshot again."
            )
    return DiTConfig(
        **found,
        num_heads=settings.get("num_heads", dim // WAN_HEAD_DIM),
        pose_dim=shape("patch_embedding_pose.weight")[1],
        text_dim=shape("text_embedding.0.weight")[1],
        clip_dim=shape("img_emb.proj.0.weight")[0],
        text_len=settings.get("text_len", 512),
        eps=settings.get("eps", 1e-6),
    )


def vae_config(path: Path, tensors: Tensors) -> VAEConfig:
    """Read the sizes of a Wan 2.1 VAE from its encoder, stage by stage."""
    shape = _shapes(path, tensors)
    dim = shape("encoder.conv1.bias")[0]
    mults, temporal, blocks = [], [], 0
    for i in range(_count(tensors, r"encoder\.downsamples\.(\d+)\.")):
        if f"encoder.downsamples.{i}.resample.1.bias" in tensors:
            temporal.append(f"encoder.downsamples.{i}.time_conv.bias" in tensors)
            blocks = 0
            continue
        blocks += 1
        if blocks == 1:
            mults.append(shape(f"encoder.downsamples.{i}.residual.2.bias")[0] // dim)
    return VAEConfig(
        dim=dim,
        z_dim=shape("conv2.bias")[0],
        dim_mult=tuple(mults),
        num_res_blocks=blocks,
        temporal_downsample=tuple(temporal),
    )


def umt5_config(path: Path, tensors: Tensors) -> UMT5Config:
    """Read the sizes of a UMT5 encoder."""
    shape = _shapes(path, tensors)
    vocab_size, dim = shape("token_embedding.weight")
    num_buckets, num_heads = shape("blocks.0.pos_embedding.embedding.weight")
    return UMT5Config(
        vocab_size=vocab_size,
        dim=dim,
        dim_attn=shape("blocks.0.attn.q.weight")[0],
        dim_ffn=shape("blocks.0.ffn.fc1.weight")[0],
        num_heads=num_heads,
        num_layers=_count(tensors, r"blocks\.(\d+)\."),
        num_buckets=num_buckets,
    )


def clip_config(path: Path, tensors: Tensors, settings: Mapping[str, Any]) -> ClipConfig:
    """Read the sizes of a CLIP visual tower; `settings` may name "clip_num_heads"."""
    shape = _shapes(path, tensors)
    dim, _, patch, _ = shape("patch_embedding.weight")
    side = round((shape("pos_embedding")[1] - 1) ** 0.5)
    return ClipConfig(
        dim=dim,
        num_heads=settings.get("clip_num_heads", dim // CLIP_HEAD_DIM),
        num_layers=_count(tensors, r"transformer\.(\d+)\."),
        mlp_dim=shape("transformer.0.mlp.0.bias")[0],
        out_dim=shape("head")[1],
        patch_size=patch,
        image_size=side * patch,
    )


def _shapes(path: Path, tensors: Tensors) -> Any:
    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise WeightsError(
                f"{path} has no tensor '{name}', without which {identify(tensors)} cannot be: download the file again."
            )
        return tensors[name].shape

    return shape


def _count(tensors: Tensors, pattern: str) -> int:
    numbers = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(found.group(1)) for found in numbers if found), default=-1)
