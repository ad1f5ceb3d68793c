"""The sampler for graphs that ComfyUI's own nodes have prepared: its CONDITIONING and LATENT in, a LATENT out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.settings import sampling_of
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .neighbour import neighbour
from .settings import DEFAULTS, widget, widgets
from .tensors import CORE_KEYS, LATENT_KEY, clip_tokens, one_of, to_array

if TYPE_CHECKING:
    from ..mlx_backend.members.scail2.comfy_streams import ComfyCondition, ComfyStreams
    from ..mlx_backend.pipelines.comfy import ComfyLatent

CORE_SHIFT = 8.0  # of ComfyUI's SCAIL-2 model, and so of its schedulers
# What would change ComfyUI's result, but is not done here, and the node that sets it.
UNKNOWN = {
    "area": "Conditioning (Set Area)",
    "mask": "Conditioning (Set Mask)",
    "default": "Cond Set Default Combine",
    "hooks": "a hook node",
    "clip_start_percent": "a hook node",
    "control": "Apply ControlNet",
    "gligen": "GLIGEN Textbox Apply",
    "concat_mask": "an inpainting node",
    "time_dim_concat": "a node for another Wan model",
}


class Scail2CoreSampler(io.ComfyNode):
    """In place of ComfyUI's sampler, scheduler and model loaders, behind its WanSCAILToVideo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2CoreSampler",
            display_name="SCAIL-2 Sampler for core conditioning (MLX)",
            category=sockets.CATEGORY,
            description="Takes the place of ComfyUI's sampler in a SCAIL-2 graph: what WanSCAILToVideo makes goes in, "
            "and a latent for any VAE Decode comes out. The model runs in MLX.",
            search_aliases=["scail", "scail2", "ksampler", "drop-in", "core", "WanSCAILToVideo"],
            inputs=_inputs(),
            outputs=[
                io.Latent.Output("latent", display_name="latent"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive: list,
        negative: list,
        latent_image: dict,
        resume: bool = True,
        range_shift: float = 0.0,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the LATENT that was given, with other samples, and the report as JSON."""
        sampling = sampling_of(settings, DEFAULTS)
        require_mlx()
        from ..mlx_backend.pipelines.comfy import prepare_comfy, sample_comfy
        from ..mlx_backend.pipelines.recording import Recording, report_run
        from ..mlx_backend.pipelines.run import Session

        recording = Recording(host.HostListener())
        clips = _clips(positive, negative if sampling.is_guided else None, latent_image)
        with neighbour().at_work():
            host.free_torch_memory()
            session = Session(listener=recording, kept=host.resume_folder() if resume else None)
            run = prepare_comfy(model, clips, sampling, session, range_shift=range_shift or None)
            made = sample_comfy(run, session)
        kept = {key: value for key, value in latent_image.items() if key != LATENT_KEY}
        return io.NodeOutput(kept | {"samples": torch.from_numpy(made)}, str(report_run(run, recording)))


def _clips(positive: list, negative: list | None, latent: dict[str, Any]) -> list[ComfyLatent]:
    """Return each clip of the LATENT with what belongs to it; without `negative` there are no negative conditions."""
    from ..mlx_backend.pipelines.comfy import ComfyLatent

    samples, mask = to_array(latent["samples"]), latent.get("noise_mask")
    if mask is not None:
        mask = to_array(mask.float().mean(dim=1) if mask.ndim == 5 else mask)  # [B, channels, T, h, w] to [B, T, h, w]
    draws = latent.get("batch_index") or range(len(samples))
    return [
        ComfyLatent(
            positive=_conditions("positive", positive, number),
            negative=() if negative is None else _conditions("negative", negative, number),
            latent=clip,
            noise_mask=None if mask is None else mask[number % len(mask)],
            draw=draws[number],
        )
        for number, clip in enumerate(samples)
    ]


def _conditions(name: str, conditioning: list, clip: int) -> tuple[ComfyCondition, ...]:
    """Return the entries of the CONDITIONING `name` for a clip: of each batch the one of that number, or round again.

    Raises RequestError.
    """
    from ..mlx_backend.members.scail2.comfy_streams import ComfyCondition

    if not any(key in options for _, options in conditioning for key in CORE_KEYS):
        raise RequestError(
            f"The {name} conditioning has none of {', '.join(CORE_KEYS)}: connect the {name} output of "
            "WanSCAILToVideo, not that of a text encoder."
        )
    for key, node in UNKNOWN.items():
        if any(options.get(key) is not None for _, options in conditioning):
            raise RequestError(
                f"The {name} conditioning has '{key}' (set by {node}), which SCAIL-2 in MLX does not know: leave that "
                "node out."
            )
    return tuple(
        ComfyCondition(
            text=one_of(f"text of the {name} conditioning", text, clip),
            clip=clip_tokens(options.get("clip_vision_output"), clip),
            streams=_streams(options, clip),
            start=options.get("start_percent"),
            end=options.get("end_percent"),
        )
        for text, options in conditioning
    )


def _streams(options: dict[str, Any], clip: int) -> ComfyStreams:
    from ..mlx_backend.members.scail2.comfy_streams import ComfyStreams

    def mask(name: str) -> np.ndarray | None:  # [B, T, 28, h, w] to [28, T, h, w]
        found = one_of(name, options.get(name), clip)
        return found if found is None else found.swapaxes(0, 1)

    return ComfyStreams(
        reference_latents=tuple(one_of("reference_latents", x, clip) for x in options.get("reference_latents") or ()),
        ref_mask_28ch=mask("ref_mask_28ch"),
        pose_video_latent=one_of("pose_video_latent", options.get("pose_video_latent"), clip),
        driving_mask_28ch=mask("driving_mask_28ch"),
        replacement=not options.get("ref_mask_flag", True),
    )


def _inputs() -> list[io.Input]:
    return [
        sockets.Model.Input("model", tooltip="From Load SCAIL-2, with LoRAs from SCAIL-2 LoRA: not a core model."),
        io.Conditioning.Input(
            "positive",
            tooltip="The positive output of WanSCAILToVideo: prompt, reference, driving video, masks, CLIP features.",
        ),
        io.Conditioning.Input(
            "negative", tooltip="The negative output of WanSCAILToVideo. Unused when cfg is 1 or less."
        ),
        io.Latent.Input(
            "latent_image",
            tooltip="The latent output of WanSCAILToVideo. With previous_frames there it brings the frames to continue "
            "from, and its noise_mask keeps them.",
        ),
        *widgets("seed", "steps", "cfg"),
        widget(
            "shift",
            default=CORE_SHIFT,
            tooltip="Moves the steps towards strong noise. ComfyUI's schedulers use 8 for this model, unless a "
            "ModelSamplingSD3 node stands between the model and the scheduler.",
        ),
        widget(
            "solver",
            default="euler",
            tooltip="euler is that of ComfyUI. unipc and dpm++ are upstream's, not ComfyUI's of similar names.",
        ),
        widget(
            "grid",
            default="simple",
            optional=False,
            advanced=False,
            tooltip="At which noise levels the steps lie. simple: as ComfyUI's scheduler of that name. upstream: as "
            "the original.",
        ),
        widget(
            "pose_rope",
            default="midpoint",
            optional=False,
            tooltip="How the driving video's positions are rotated. midpoint: as ComfyUI's own sampling, so that "
            "results compare. upstream: as the original and as SCAIL-2 Sampler.",
        ),
        *widgets("step_cache", "cache_threshold", "guidance_until", "resume"),
        widget(
            "shift",
            name="range_shift",
            default=0.0,
            low=0.0,
            optional=True,
            advanced=True,
            tooltip="The shift in which pose_start and pose_end of WanSCAILToVideo are counted; 0: that of the steps. "
            "ComfyUI's template counts them in the 5 of its ModelSamplingSD3, and its steps in 8.",
        ),
    ]
