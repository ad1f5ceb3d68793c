"""The Wan family's prompt and sampler: words and pictures in, latents of a clip out."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.settings import ROWS, sampling_of, scene_of
from ..mlx_backend.members.wan.model import Wan
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .conditioning import Scail2T5Encode
from .sampling import sampled
from .settings import as_input, widget
from .tensors import to_numpy, to_text

OWN = "the model's own"
# What the sampler offers of the table of settings; the first ones are the model's own where they are 0.
OWN_WHERE_ZERO = ("width", "height", "steps", "cfg", "cfg_low", "shift")
OTHERS = ("seed", "step_cache", "cache_threshold", "guidance_until", "draft", "grid", "resume", "exact_size")


class WanMLXPrompt(io.ComfyNode):
    """The prompt as the model reads it, with the negative prompt of its publisher where none is written."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="WanMLXPrompt",
            display_name="Wan Prompt (UMT5)",
            category=sockets.CATEGORY,
            description="Encodes the prompt with UMT5, in MLX.",
            search_aliases=["wan", "umt5", "t5", "text encode", "prompt"],
            inputs=[
                sockets.Model.Input("model", tooltip="From Load Wan: its negative prompt is taken."),
                sockets.TextEncoder.Input("text_encoder", tooltip="From Load Wan."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="Describe the clip: who or what, what happens, where, in which light. At most 512 tokens.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What the clip should not show. Empty: the model's own, unless that is switched off.",
                ),
                io.Boolean.Input(
                    "own_negative",
                    default=True,
                    tooltip="Take the published negative prompt of the model where none is written.",
                ),
            ],
            outputs=[sockets.TextFeatures.Output("text", display_name="text")],
        )

    @classmethod
    def execute(cls, model, text_encoder, prompt: str, negative_prompt: str, own_negative: bool) -> io.NodeOutput:
        """Return the features of both prompts."""
        if own_negative and not negative_prompt.strip():
            negative_prompt = model.store.member.defaults.negative
        return Scail2T5Encode.execute(text_encoder, prompt, negative_prompt)


class WanMLXSampler(io.ComfyNode):
    """A clip from words and, by model, from its first and last picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="WanMLXSampler",
            display_name="Wan Sampler (MLX)",
            category=sockets.CATEGORY,
            description="Makes a clip of words and, where the model takes them, of its first and last picture. Two "
            "experts take turns in memory.",
            search_aliases=["wan", "text to video", "image to video", "first frame", "last frame", "t2v", "i2v"],
            inputs=_inputs(),
            outputs=[
                io.Latent.Output("latent", display_name="latent"),
                io.Float.Output("fps", display_name="fps"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        text,
        frames: int,
        solver: str,
        clip_vision=None,
        start_image: torch.Tensor | None = None,
        end_image: torch.Tensor | None = None,
        negative: list | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the LATENT, the rate of its frames and the report; `settings` are rows of interface/settings.py."""
        require_mlx()
        from ..mlx_backend.pipelines.recording import Recording
        from ..mlx_backend.pipelines.store import Models

        member = _member(model, needs_clip=clip_vision is None)
        given = {name: value for name, value in settings.items() if value or name not in OWN_WHERE_ZERO}
        given |= {"max_frames": frames, "solver": None if solver == OWN else solver}
        pictures = {"image": _first(start_image), "last_image": _first(end_image)}
        scene, sampling = scene_of(given, pictures, member.defaults), sampling_of(given, member.defaults)
        text = to_text(text, negative, is_guided=sampling.is_guided)
        models = Models.with_dit(model, None, clip_vision, vae)
        keeps = settings.get("resume", True)
        latent, report = sampled(models, text, scene, sampling, Recording(host.HostListener()), keeps=keeps)
        return io.NodeOutput(latent, scene.fps, report)


def _inputs() -> list[io.Input]:
    own = "0: the model's own."
    return [
        sockets.Model.Input("model", tooltip="From Load Wan, or a Wan LoRA node."),
        sockets.Vae.Input("vae", tooltip="From Load Wan."),
        io.MultiType.Input(
            "text",
            types=[sockets.TextFeatures, io.Conditioning],
            tooltip="From Wan Prompt; or the CONDITIONING of ComfyUI's CLIP Text Encode, with another at negative.",
        ),
        *(widget(name, default=0, low=0, tooltip=_own(name, own)) for name in ("width", "height")),
        io.Int.Input(
            "frames",
            default=0,
            min=0,
            max=1025,
            tooltip=f"Frames of the clip; 4k+1 are made, and what is more is left out. {own}",
        ),
        *(
            widget(name, default=0.0 if name != "steps" else 0, low=0, tooltip=_own(name, own))
            for name in ("steps", "cfg", "cfg_low", "shift")
        ),
        io.Combo.Input(
            "solver",
            options=[OWN, *ROWS["solver"].choices],
            default=OWN,
            tooltip="unipc is upstream's; euler is what distilled LoRAs are made for.",
        ),
        *(as_input(ROWS[name]) for name in OTHERS),
        sockets.ClipVision.Input("clip_vision", optional=True, tooltip="From Load Wan, where the model takes it."),
        io.Image.Input("start_image", optional=True, tooltip="What the clip begins with."),
        io.Image.Input("end_image", optional=True, tooltip="What it ends with, where the model takes that."),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="The negative prompt, where text is a CONDITIONING. Unused when cfg is 1 or less.",
        ),
    ]


def _own(name: str, own: str) -> str:
    words = {"width": "Pixels, a multiple of 16, or 32 for TI2V-5B.", "height": "Pixels, as the width."}
    return f"{words.get(name, ROWS[name].tooltip)} {own}"


def _first(image: torch.Tensor | None) -> Any:
    return None if image is None else to_numpy(image[:1])


def _member(model: Any, *, needs_clip: bool) -> Wan:
    member = model.store.member
    if not isinstance(member, Wan):
        raise RequestError(f"This model is {member.title}, which has a sampler of its own: use SCAIL-2 Sampler.")
    if needs_clip and "clip" in member.components:
        raise RequestError(f"{member.title} shows CLIP its picture: connect clip_vision of Load Wan.")
    return member
