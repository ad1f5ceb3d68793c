"""Prompt and reference picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .neighbour import neighbour
from .tensors import to_numpy


class Scail2T5Encode(io.ComfyNode):
    """The prompt as the model reads it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2T5Encode",
            display_name="SCAIL-2 Prompt (UMT5)",
            category=sockets.CATEGORY,
            description="Encodes the prompt with UMT5, in MLX.",
            search_aliases=["scail", "umt5", "t5", "text encode", "prompt"],
            inputs=[
                sockets.TextEncoder.Input("text_encoder", tooltip="From Load SCAIL-2."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="Describe the video that should come out, in detail: who, clothing, what they do, where. "
                    "In replacement mode describe the scene with the new character in it. At most 512 tokens.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What the video should not show. Empty, as upstream; unused when cfg is 1.",
                ),
            ],
            outputs=[sockets.TextFeatures.Output("text", display_name="text")],
        )

    @classmethod
    def execute(cls, text_encoder, prompt: str, negative_prompt: str) -> io.NodeOutput:
        """Return the features of both prompts."""
        require_mlx()
        from ..mlx_backend.pipelines.text import encode_prompts

        with neighbour().at_work():
            return io.NodeOutput(encode_prompts(text_encoder, prompt, negative_prompt, host.HostListener()))


class Scail2ClipEncode(io.ComfyNode):
    """The reference picture for CLIP. The sampler encodes it, as only it knows the final size and crop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2ClipEncode",
            display_name="SCAIL-2 Reference Features (CLIP)",
            category=sockets.CATEGORY,
            description="Hands the reference picture to CLIP. The sampler encodes it after it has resized and cropped "
            "it, so that CLIP sees what the VAE sees.",
            search_aliases=["scail", "clip vision", "reference", "image encode"],
            inputs=[
                sockets.ClipVision.Input("clip_vision", tooltip="From Load SCAIL-2."),
                io.Image.Input("reference_image", tooltip="The same picture that goes to the sampler."),
            ],
            outputs=[sockets.ClipFeatures.Output("clip_features", display_name="clip_features")],
        )

    @classmethod
    def execute(cls, clip_vision, reference_image: torch.Tensor) -> io.NodeOutput:
        """Return the request; nothing is computed here."""
        require_mlx()
        from ..mlx_backend.pipelines.picture import ClipRequest

        return io.NodeOutput(ClipRequest(clip_vision, to_numpy(reference_image[:1])))
