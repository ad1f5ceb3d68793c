"""Frame rates: any clip to the model's 16 frames per second, and back."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..mlx_backend.media.timing import check_same_length, fitted_waveform, resampling
from . import host, sockets
from .settings import DEFAULTS


class Scail2ResampleFps(io.ComfyNode):
    """Frames, mask and sound of a clip at another frame rate, all of the same duration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        mask = io.MatchType.Template("mask", [io.Image, io.Mask])
        return io.Schema(
            node_id="Scail2ResampleFps",
            display_name="SCAIL-2 Resample FPS (MLX)",
            category=sockets.CATEGORY,
            description="Brings a clip to 16 frames per second, which the model was trained on, or back to another "
            "rate. Frames are picked by time and never blended; mask and audio stay in step.",
            search_aliases=["scail", "fps", "frame rate", "16 fps", "resample", "audio sync"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of the clip."),
                io.Float.Input(
                    "source_fps",
                    default=30.0,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames per second that the images have. Connect the fps of Get Video Components.",
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
                    tooltip="The mask of the clip, coloured pictures or a MASK, one per image. The same frames are "
                    "picked from it.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound of the clip. It is cut at the end, or lengthened by silence, to the duration "
                    "of the new clip, and otherwise left as it is.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.MatchType.Output(template=mask, id="mask", display_name="mask"),
                io.Audio.Output("audio", display_name="audio"),
                io.Float.Output("fps", display_name="fps"),
                io.Int.Output("frames", display_name="frames"),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        source_fps: float,
        target_fps: float,
        mask: torch.Tensor | None = None,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        """Return images, mask, audio, the new rate and how many frames there are; None for what is not connected."""
        plan = resampling(len(images), source_fps, target_fps)
        if mask is not None:
            check_same_length("mask", len(mask), len(images))
        listener = host.HostListener()
        listener.note(str(plan))
        if not plan.is_identity:
            picks = torch.from_numpy(plan.picks)
            images, mask = images[picks], None if mask is None else mask[picks]
        if audio is not None:
            audio = _fitted(audio, plan.seconds, listener)
        return io.NodeOutput(images, mask, audio, float(plan.target), len(images))


def _fitted(audio: dict, seconds: float, listener: host.HostListener) -> dict:
    waveform, rate = audio["waveform"], audio["sample_rate"]
    fitted = fitted_waveform(waveform.detach().cpu().numpy(), rate, seconds, listener)
    return {**audio, "waveform": torch.from_numpy(fitted)}
