"""The pack's own socket types. They carry handles and features, never weights."""

from __future__ import annotations

from comfy_api.latest import io

Model = io.Custom("WAN_MLX_MODEL")
TextEncoder = io.Custom("WAN_MLX_TEXT_ENCODER")
ClipVision = io.Custom("WAN_MLX_CLIP_VISION")
Vae = io.Custom("WAN_MLX_VAE")
TextFeatures = io.Custom("WAN_MLX_TEXT")
ClipFeatures = io.Custom("WAN_MLX_CLIP_FEATURES")

CATEGORY = "SCAIL-2 MLX"


def inputs_of(node: type[io.ComfyNode], *names: str) -> list[io.Input]:
    """Return inputs of another node by their ids: the same words, values and limits."""
    inputs = {item.id: item for item in node.define_schema().inputs}
    return [inputs[name] for name in names]
