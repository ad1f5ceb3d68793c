"""Frame rates: any clip to the model's 16 frames per second, and back."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..mlx_backend.interface.events import Listener
from ..mlx_backend.media.footage import Footage, seen
from ..mlx_backend.media.timing import check_same_length, fitted_waveform, resampling
from . import host, sockets
from .settings import DEFAULTS
from .tensors import to_clip
from .videos import LazyVideo


class Scail2ResampleFps(io.ComfyNode):
    """Frames, mask and sound of a clip at another frame rate, all of the same duration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        images = io.MatchType.Template("images", [io.Image, io.Video])
        mask = io.MatchType.Template("mask", [io.Image, io.Mask, io.Video])
        return io.Schema(
            node_id="Scail2ResampleFps",
            display_name="SCAIL-2 Resample FPS (MLX)",
            category=sockets.CATEGORY,
            description="Brings a clip to 16 frames per second, which the model was trained on, or back to another "
            "rate. Frames are picked by time and never blended; mask and audio stay in step.",
            search_aliases=["scail", "fps", "frame rate", "16 fps", "resample", "audio sync"],
            inputs=[
                io.MatchType.Input(
                    "images",
                    template=images,
                    tooltip="The frames of the clip; or a VIDEO, whose own rate counts and of which nothing is decoded "
                    "here.",
                ),
                io.Float.Input(
                    "source_fps",
                    default=30.0,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames per second that the images have. Connect the fps of the node that loads them.",
                ),
                io.Float.Input(
                    "target_fps",
                    default=DEFAULTS.driving_fps,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames per second to come out: 16 before the sampler; the video's own rate to go back.",
                ),
                io.MatchType.Input(
                    "mask",
                    template=mask,
                    optional=True,
                    tooltip="The mask of the clip, coloured pictures, a MASK or a VIDEO, one per image. The same "
                    "frames are picked from it.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound of the clip. It is cut at the end, or lengthened by silence, to the duration "
                    "of the new clip, and otherwise left as it is.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template=images, id="images", display_name="images"),
                io.MatchType.Output(template=mask, id="mask", display_name="mask"),
                io.Audio.Output("audio", display_name="audio"),
                io.Float.Output("fps", display_name="fps"),
                io.Int.Output("frames", display_name="frames"),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor | Any,
        source_fps: float,
        target_fps: float,
        mask: torch.Tensor | Any | None = None,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        """Return images, mask, audio, the new rate and how many frames there are; None for what is not connected."""
        if isinstance(images, torch.Tensor) and isinstance(mask, torch.Tensor):
            check_same_length("mask", len(mask), len(images))
        listener = host.HostListener()
        images, frames = _shown(images, source_fps, target_fps, listener)
        rate = float(resampling(1, source_fps, target_fps).target)
        if mask is not None:
            mask, count = _shown(mask, source_fps, target_fps, Listener())
            check_same_length("mask", count, frames)
        if audio is not None:
            audio = _fitted(audio, frames / rate, listener)
        return io.NodeOutput(images, mask, audio, rate, frames)


def _shown(given: torch.Tensor | Any, source: float, target: float, listener: Listener) -> tuple[Any, int]:
    """Return an IMAGE, a MASK or a VIDEO at another rate, and how many frames it has then."""
    pictures, own = (given, None) if isinstance(given, torch.Tensor) else to_clip(given)
    plan = resampling(len(pictures), own or source, target)
    if isinstance(pictures, Footage):
        shown = pictures.at_rate(float(plan.target), listener) if pictures.fps else seen(pictures, plan)
        return LazyVideo(shown, float(plan.target)), len(shown)
    listener.note(str(plan))
    if isinstance(pictures, torch.Tensor):
        shown = pictures if plan.is_identity else pictures[torch.from_numpy(plan.picks)]
        return shown, len(shown)
    return LazyVideo(seen(pictures, plan), float(plan.target)), len(plan.picks)


def _fitted(audio: dict, seconds: float, listener: host.HostListener) -> dict:
    waveform, rate = audio["waveform"], audio["sample_rate"]
    fitted = fitted_waveform(waveform.detach().cpu().numpy(), rate, seconds, listener)
    return {**audio, "waveform": torch.from_numpy(fitted)}
