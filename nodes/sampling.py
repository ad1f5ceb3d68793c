"""The sampler: pictures, masks and features in, latents of a clip of any length out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..mlx_backend.interface.requests import SamplingSettings, Scene
from ..mlx_backend.interface.settings import SETTINGS, sampling_of, scene_of
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .neighbour import neighbour
from .settings import DEFAULTS, as_input, checked
from .tensors import to_clip_request, to_latent, to_numpy, to_pictures, to_text

if TYPE_CHECKING:
    from ..mlx_backend.pipelines.picture import ClipRequest
    from ..mlx_backend.pipelines.recording import Recording
    from ..mlx_backend.pipelines.store import Models
    from ..mlx_backend.pipelines.text import TextFeatures


class Scail2Sampler(io.ComfyNode):
    """SCAIL-2 from start to latents, segment after segment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2Sampler",
            display_name="SCAIL-2 Sampler (MLX)",
            category=sockets.CATEGORY,
            description="Makes the reference character perform the driving video's motion: in its own scene "
            "(animation) or in the driving video's scene (replacement). Videos of any length; no frame is dropped.",
            search_aliases=[
                *("scail", "scail2", "animate", "wan animate", "character replacement", "replace person"),
                *("motion transfer", "reference video", "pose", "dance", "long video"),
            ],
            inputs=[*_inputs(), *(as_input(row) for row in SETTINGS.values()), *_core()],
            outputs=[
                io.Latent.Output("latent", display_name="latent"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        width: int | None,
        height: int | None,
        segment_length: int | None,
        segment_overlap: int | None,
        history: str | None = None,
        colour_anchor: str | None = None,
    ) -> bool | str:
        """Refuse what constants decide before anything is queued."""
        segments = {"segment_length": segment_length, "segment_overlap": segment_overlap}
        continued = {"history": history, "colour_anchor": colour_anchor}
        return checked({"width": width, "height": height} | segments | continued)

    @classmethod
    def execute(
        cls,
        model,
        vae,
        text,
        clip_features,
        reference_image: torch.Tensor,
        driving_video: torch.Tensor,
        reference_mask: torch.Tensor | None = None,
        driving_mask: torch.Tensor | None = None,
        negative: list | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the LATENT of all segments, and the report as JSON; `settings` are rows of interface/settings.py."""
        listener, fps = host.HostListener(), settings.get("driving_fps")
        pictures = {
            "references": to_numpy(reference_image),
            "driving": to_pictures(driving_video, fps, listener),
            "reference_masks": to_numpy(reference_mask),
            "driving_mask": to_pictures(driving_mask, fps, listener),
        }
        scene, sampling = scene_of(settings, pictures, DEFAULTS), sampling_of(settings, DEFAULTS)
        require_mlx()
        from ..mlx_backend.pipelines.limits import held_to_limits
        from ..mlx_backend.pipelines.recording import Recording
        from ..mlx_backend.pipelines.store import Models

        recording = Recording(listener)
        scene, sampling = held_to_limits(model, scene, sampling, recording)
        text, clip = to_text(text, negative, is_guided=sampling.is_guided), to_clip_request(clip_features)
        models, keeps = Models(model, clip=clip.handle, vae=vae), settings.get("resume", True)
        return io.NodeOutput(*sampled(models, text, scene, sampling, recording, clip, keeps=keeps))


def sampled(
    models: Models,
    text: TextFeatures,
    scene: Scene,
    sampling: SamplingSettings,
    recording: Recording,
    clip: ClipRequest | None = None,
    *,
    keeps: bool,
) -> tuple[dict[str, Any], str]:
    """Make a run as good neighbours do; return the LATENT of all segments, and the report as JSON.

    `clip`: what CLIP is to see where the model does not choose it; `keeps`: finished segments, for the next time.
    """
    from ..mlx_backend.pipelines.pictures import prepare, sample_pictures
    from ..mlx_backend.pipelines.recording import report_run
    from ..mlx_backend.pipelines.run import Session

    shown = {} if clip is None else {"clip_picture": clip.picture, "clip_tokens": clip.tokens}
    with neighbour().at_work():
        host.free_torch_memory()
        session = Session(listener=recording, kept=host.resume_folder() if keeps else None)
        run = prepare(models, text, scene, sampling, session, **shown)
        latents = sample_pictures(run, session)
    return to_latent(latents), str(report_run(run, recording))


def _inputs() -> list[io.Input]:
    mask_types = [io.Image, io.Mask]
    return [
        sockets.Model.Input("model", tooltip="From Load SCAIL-2."),
        sockets.Vae.Input("vae", tooltip="From Load SCAIL-2."),
        io.MultiType.Input(
            "text",
            types=[sockets.TextFeatures, io.Conditioning],
            tooltip="From SCAIL-2 Prompt; or the CONDITIONING of ComfyUI's CLIP Text Encode, with another at negative.",
        ),
        io.MultiType.Input(
            "clip_features",
            types=[sockets.ClipFeatures, io.ClipVisionOutput],
            tooltip="From SCAIL-2 Reference Features; or the output of ComfyUI's CLIP Vision Encode.",
        ),
        io.Image.Input(
            "reference_image",
            tooltip="The character. In a batch the first picture counts, the others are extra views of it.",
        ),
        io.MultiType.Input(
            "driving_video",
            types=[io.Image, io.Video],
            tooltip="The motion, as frames at 16 fps; or a VIDEO of any rate, which is seen at driving_fps, and of "
            "which only what the run needs is decoded. One frame makes a still picture.",
        ),
        io.MultiType.Input(
            "reference_mask",
            types=mask_types,
            optional=True,
            tooltip="Where the character is: a picture with it in pure blue on white (animation) or black "
            "(replacement), one per reference; or a MASK, which is painted so.",
        ),
        io.MultiType.Input(
            "driving_mask",
            types=[*mask_types, io.Video],
            optional=True,
            tooltip="Where the person is in each driving frame: pure blue on black (animation) or white "
            "(replacement); several people in blue, red, green, magenta, cyan, yellow; or a MASK for one person.",
        ),
    ]


def _core() -> list[io.Input]:
    """What ComfyUI brings along."""
    return [
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="The negative prompt, where text is a CONDITIONING. Unused when cfg is 1 or less.",
        ),
    ]
