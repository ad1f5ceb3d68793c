"""With which sizes a network takes a set of tensors: from names and shapes, never from file names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...interface.errors import WeightsError
from ...interface.sizes import PATCH, ClipConfig, UMT5Config, VAEConfig, WanConfig
from ...interface.variants import MAX_TEXT_TOKENS
from ...members.member import Member
from ...members.signature import IMAGE_BRANCH
from ..formats.safetensors_file import TensorInfo
from ..names.key_maps import kind_of

WAN_HEAD_DIM = 128
CLIP_HEAD_DIM = 80

Tensors = Mapping[str, TensorInfo]
Place = tuple[str, int]  # a tensor and an axis

# Where a DiT's sizes can be read that config.json gives too.
DIT_PLACES: dict[str, tuple[Place, ...]] = {
    "dim": (("head.modulation", -1), ("patch_embedding.bias", 0), ("text_embedding.2.bias", 0)),
    "ffn_dim": (("blocks.0.ffn.0.bias", 0), ("blocks.0.ffn.0.weight", 0), ("blocks.1.ffn.0.bias", 0)),
    "freq_dim": (("time_embedding.0.weight", 1),),
    "in_dim": (("patch_embedding.weight", 1),),
}
IMAGE_PROJECTION: tuple[Place, ...] = (
    ("img_emb.proj.0.weight", 0),
    ("img_emb.proj.0.bias", 0),
    ("img_emb.proj.1.bias", 0),
)
EMB_POS = "img_emb.emb_pos"
DIT_SETTINGS = (*DIT_PLACES, "mask_dim", "num_heads", "num_layers", "out_dim", "text_len", "eps")


def dit_config(path: Path, tensors: Tensors, settings: Mapping[str, Any], member: Member) -> WanConfig:
    """Read the sizes of a member's DiT; `settings` is config.json, whose numbers must agree with the shapes."""
    size = _sizes(path, tensors, kind_of("dit"))
    places = DIT_PLACES | {name: ((tensor, axis),) for name, tensor, axis in member.sizes}
    found = {name: size(*where) for name, where in places.items()}
    found["freq_dim"] = _inputs(tensors, "time_embedding", found["freq_dim"], found["dim"])
    found["num_layers"] = _count(tensors, r"blocks\.(\d+)\.")
    found["out_dim"] = size(("head.head.bias", 0), ("head.head.weight", 0)) // PATCH**2
    for name, value in found.items():
        if settings.get(name, value) != value:
            tensor = places.get(name, ((name, 0),))[0][0]
            shape = f"'s tensor '{tensor}' has shape {list(tensors[tensor].shape)}" if tensor in tensors else ""
            raise WeightsError(
                f"config.json beside {path} says {name} = {settings[name]!r}, but the file{shape or f' has {value}'}: "
                "the two are of different models or damaged, download the snapshot again."
            )
    text_len = _setting(path, settings, "text_len", MAX_TEXT_TOKENS)
    if text_len < MAX_TEXT_TOKENS:
        raise WeightsError(
            f"config.json beside {path} says text_len = {text_len}, but {member.title} reads prompts of "
            f"{MAX_TEXT_TOKENS} tokens: download it again."
        )
    if set(IMAGE_BRANCH) <= set(member.signature.names):
        found["clip_dim"] = size(*IMAGE_PROJECTION)
    if EMB_POS in tensors:
        found["image_positions"] = size((EMB_POS, 1))
    return member.config(
        found
        | {
            "num_heads": _heads(path, settings, "num_heads", found["dim"], WAN_HEAD_DIM),
            "text_dim": _inputs(tensors, "text_embedding", size(("text_embedding.0.weight", 1)), found["dim"]),
            "text_len": text_len,
            "eps": _setting(path, settings, "eps", 1e-6),
        }
    )


def dit_settings(config: WanConfig) -> dict[str, Any]:
    """Return the config.json that a snapshot of this DiT has: what `dit_config` takes for `settings`."""
    sizes = {name: getattr(config, name) for name in DIT_SETTINGS if hasattr(config, name)}
    return {"model_type": "i2v" if config.clip_dim else "t2v"} | sizes


def vae_config(path: Path, tensors: Tensors) -> VAEConfig:
    """Read the sizes of a Wan VAE from its encoder, stage by stage."""
    size = _sizes(path, tensors, kind_of("vae"))
    if any(name.startswith("decoder.upsamples.0.upsamples.") for name in tensors):
        return _vae22_config(tensors, size)
    dim = size(("encoder.conv1.bias", 0), ("encoder.conv1.weight", 0), ("decoder.head.0.gamma", 0))
    mults, temporal, blocks = [], [], 0
    for i in range(_count(tensors, r"encoder\.downsamples\.(\d+)\.")):
        part = f"encoder.downsamples.{i}"
        if any(name.startswith(f"{part}.resample.") for name in tensors):
            temporal.append(any(name.startswith(f"{part}.time_conv.") for name in tensors))
            blocks = 0
            continue
        blocks += 1
        if blocks == 1:
            places = ((f"{part}.residual.{name}", 0) for name in ("2.bias", "2.weight", "6.bias"))
            mults.append(size(*places) // dim)
    return VAEConfig(
        dim=dim,
        z_dim=size(("conv2.bias", 0), ("conv2.weight", 0), ("conv2.weight", -1)),
        dim_mult=tuple(mults),
        num_res_blocks=blocks,
        temporal_downsample=tuple(temporal),
    )


def _vae22_config(tensors: Tensors, size: Callable[..., int]) -> VAEConfig:
    """Read the sizes of a Wan 2.2 VAE, whose stages are lists of their own, from its decoder: some have no encoder."""
    stages = range(_count(tensors, r"decoder\.upsamples\.(\d+)\."))
    last, temporal = stages[-1], []
    for stage in stages[:-1]:
        part = f"decoder.upsamples.{stage}.upsamples."
        temporal.append(any(name.startswith(part) and ".time_conv." in name for name in tensors))
    blocks = _count(tensors, rf"decoder\.upsamples\.{last}\.upsamples\.(\d+)\.")
    decoder = size(("decoder.head.0.gamma", 0), (f"decoder.upsamples.{last}.upsamples.0.residual.2.bias", 0))
    widths = [size((f"decoder.upsamples.{n}.upsamples.0.residual.2.bias", 0)) // decoder for n in reversed(stages)]
    return VAEConfig(
        dim=size(("encoder.conv1.bias", 0)) if "encoder.conv1.bias" in tensors else decoder,
        decoder_dim=decoder,
        z_dim=size(("conv2.bias", 0), ("conv2.weight", 0)),
        dim_mult=tuple(widths),
        num_res_blocks=blocks - 1,
        temporal_downsample=tuple(reversed(temporal)),
        patch=round((size(("decoder.head.2.bias", 0)) // 3) ** 0.5),
    )


def umt5_config(path: Path, tensors: Tensors) -> UMT5Config:
    """Read the sizes of a UMT5 encoder."""
    size = _sizes(path, tensors, kind_of("t5_encoder"))
    positions = [f"blocks.{i}.pos_embedding.embedding.weight" for i in range(3)]
    return UMT5Config(
        vocab_size=size(("token_embedding.weight", 0)),
        dim=size(("token_embedding.weight", 1), ("norm.weight", 0), ("blocks.0.norm1.weight", 0)),
        dim_attn=size(*((f"blocks.0.attn.{name}.weight", 0) for name in "qkv")),
        dim_ffn=size(("blocks.0.ffn.fc1.weight", 0), ("blocks.0.ffn.gate.0.weight", 0), ("blocks.0.ffn.fc2.weight", 1)),
        num_heads=size(*((name, 1) for name in positions)),
        num_layers=_count(tensors, r"blocks\.(\d+)\."),
        num_buckets=size(*((name, 0) for name in positions)),
    )


def clip_config(path: Path, tensors: Tensors, settings: Mapping[str, Any]) -> ClipConfig:
    """Read the sizes of a CLIP visual tower; `settings` may name "clip_num_heads"."""
    size = _sizes(path, tensors, kind_of("clip"))
    dim = size(("pos_embedding", -1), ("cls_embedding", -1), ("pre_norm.bias", 0))
    patch = size(("patch_embedding.weight", 2), ("patch_embedding.weight", 3))
    side = round((size(("pos_embedding", 1)) - 1) ** 0.5)
    return ClipConfig(
        dim=dim,
        num_heads=_heads(path, settings, "clip_num_heads", dim, CLIP_HEAD_DIM),
        num_layers=_count(tensors, r"transformer\.(\d+)\."),
        mlp_dim=size(
            ("transformer.0.mlp.0.bias", 0), ("transformer.0.mlp.0.weight", 0), ("transformer.0.mlp.2.weight", 1)
        ),
        out_dim=size(("head", 1)),
        patch_size=patch,
        image_size=side * patch,
    )


def _inputs(tensors: Tensors, name: str, words: int, dim: int) -> int:
    """Return the inputs of an embedding's first matrix [dim, words]; where packed, as its second, a square, is."""
    second = f"{name}.2.weight"
    if f"{name}.0.scales" not in tensors or second not in tensors or len(tensors[second].shape) != 2:
        return words
    return words * dim // max(1, tensors[second].shape[1])


def _sizes(path: Path, tensors: Tensors, kind: str) -> Callable[..., int]:
    def size(*places: Place) -> int:
        """Return the size that most of the places have: one damaged tensor then stands out against the others."""
        shapes = [(tensors[name].shape, axis) for name, axis in places if name in tensors]
        found = Counter(shape[axis] for shape, axis in shapes if -len(shape) <= axis < len(shape) and shape[axis])
        if not found:
            name, axis = places[0]
            what = f"has shape {list(tensors[name].shape)}" if name in tensors else "is missing"
            raise WeightsError(
                f"{path}: tensor '{name}' {what}, but its axis {axis} tells a size of {kind}: download the file again."
            )
        return found.most_common(1)[0][0]

    return size


def _setting(path: Path, settings: Mapping[str, Any], name: str, default: Any) -> Any:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, type(default))) or value <= 0:
        raise WeightsError(
            f"config.json beside {path} says {name} = {value!r}, but a number above 0 is expected (usual: {default}): "
            "download it again."
        )
    return value


def _heads(path: Path, settings: Mapping[str, Any], name: str, dim: int, head_dim: int) -> int:
    heads = _setting(path, settings, name, max(1, dim // head_dim))
    if dim % heads:
        raise WeightsError(
            f"config.json beside {path} says {name} = {heads}, which does not divide the {dim} channels of the file "
            f"(usual: {dim // head_dim}): download it again."
        )
    return heads


def _count(tensors: Tensors, pattern: str) -> int:
    """Return how many numbered parts there are: those before the last with two tensors, as one may be a stray."""
    numbers = Counter(int(found.group(1)) for found in (re.match(pattern, name) for name in tensors) if found)
    return 1 + max((number for number, times in numbers.items() if times > 1), default=-1)
