"""The sampler: pictures, masks and features in, latents of a clip of any length out."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..mlx_backend.interface.continuation import ANCHORS, HISTORIES, SEGMENT_SEEDS, Continuation
from ..mlx_backend.interface.geometry import SIZE_STEP
from ..mlx_backend.interface.requests import MAX_THRESHOLD, STEP_CACHES, Economy, SamplingSettings, Scene
from ..mlx_backend.interface.variants import GRIDS, MODES, POSE_ROPES, SCAIL2, SOLVERS
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .neighbour import neighbour
from .tensors import to_clip_request, to_latent, to_numpy, to_text


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
            search_aliases=["scail", "scail2", "animate", "character replacement", "motion transfer"],
            inputs=[*_inputs(), *_settings(), *_economy(), *_continuation(), *_core()],
            outputs=[
                io.Latent.Output("latent", display_name="latent"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        text,
        clip_features,
        reference_image: torch.Tensor,
        driving_video: torch.Tensor,
        mode: str,
        width: int,
        height: int,
        steps: int,
        cfg: float,
        shift: float,
        solver: str,
        seed: int,
        segment_length: int,
        segment_overlap: int,
        start_frame: int,
        max_frames: int,
        follow_orientation: bool,
        black_background: bool,
        reference_mask: torch.Tensor | None = None,
        driving_mask: torch.Tensor | None = None,
        step_cache: str = STEP_CACHES[0],
        cache_threshold: float = Economy().threshold,
        guidance_until: float = Economy().guidance_until,
        draft: bool = False,
        grid: str = GRIDS[0],
        history: str = HISTORIES[0],
        colour_anchor: str = ANCHORS[0],
        segment_seed: str = SEGMENT_SEEDS[0],
        resume: bool = True,
        driving_fps: float = SCAIL2.fps,
        pose_rope: str = POSE_ROPES[0],
        negative: list | None = None,
    ) -> io.NodeOutput:
        """Return the LATENT of all segments, and the report as JSON."""
        scene = Scene(
            references=to_numpy(reference_image),
            driving=to_numpy(driving_video),
            reference_masks=to_numpy(reference_mask),
            driving_mask=to_numpy(driving_mask),
            mode=mode,
            width=width,
            height=height,
            start_frame=start_frame,
            max_frames=max_frames,
            follow_orientation=follow_orientation,
            black_background=black_background,
            draft=draft,
            fps=driving_fps,
        )
        settings = SamplingSettings(
            steps=steps,
            cfg=cfg,
            shift=shift,
            solver=solver,
            seed=seed,
            segment_length=segment_length,
            segment_overlap=segment_overlap,
            economy=Economy(step_cache=step_cache, threshold=cache_threshold, guidance_until=guidance_until),
            grid=grid,
            continuation=Continuation(history=history, anchor=colour_anchor, seed=segment_seed),
            pose_rope=pose_rope,
        )
        require_mlx()
        from ..mlx_backend.pipelines.limits import held_to_limits
        from ..mlx_backend.pipelines.pictures import prepare, sample_pictures
        from ..mlx_backend.pipelines.recording import Recording, report_run
        from ..mlx_backend.pipelines.run import Session
        from ..mlx_backend.pipelines.store import Models

        recording = Recording(host.HostListener())
        scene, settings = held_to_limits(model, scene, settings, recording)
        text, clip = to_text(text, negative, is_guided=settings.is_guided), to_clip_request(clip_features)
        with neighbour().at_work():
            host.free_torch_memory()
            session = Session(listener=recording, kept=host.resume_folder() if resume else None)
            models = Models(model, clip=clip.handle, vae=vae)
            run = prepare(models, text, scene, settings, session, clip_picture=clip.picture, clip_tokens=clip.tokens)
            latents = sample_pictures(run, session)
        return io.NodeOutput(to_latent(latents), str(report_run(run, recording)))


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
        io.Image.Input(
            "driving_video",
            tooltip="The motion, as frames at 16 fps. One frame makes a still picture.",
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
            types=mask_types,
            optional=True,
            tooltip="Where the person is in each driving frame: pure blue on black (animation) or white "
            "(replacement); several people in blue, red, green, magenta, cyan, yellow; or a MASK for one person.",
        ),
    ]


def _settings() -> list[io.Input]:
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="animation: the reference's scene is kept. replacement: the driving video's scene is kept.",
        ),
        io.Int.Input(
            "width", default=SCAIL2.width, min=SIZE_STEP, max=4096, step=SIZE_STEP, tooltip="Pixels, a multiple of 32."
        ),
        io.Int.Input(
            "height",
            default=SCAIL2.height,
            min=SIZE_STEP,
            max=4096,
            step=SIZE_STEP,
            tooltip="Pixels, a multiple of 32.",
        ),
        io.Int.Input("steps", default=SCAIL2.steps, min=1, max=1000, tooltip="Solver steps per segment."),
        io.Float.Input(
            "cfg",
            default=SCAIL2.cfg,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="How strongly the prompt is followed. 1 or less leaves out the second pass: twice as fast.",
        ),
        io.Float.Input(
            "shift",
            default=SCAIL2.shift,
            min=0.1,
            max=100.0,
            step=0.1,
            tooltip="Moves the steps towards strong noise. Upstream uses 3 for 512p and 5 for 704p.",
        ),
        io.Combo.Input(
            "solver",
            options=list(SOLVERS),
            default=SCAIL2.solver,
            tooltip="unipc is upstream's; euler is the plainest.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The noise is that of ComfyUI for the same seed and size.",
        ),
        io.Int.Input(
            "segment_length",
            default=SCAIL2.segment_length,
            min=5,
            max=1025,
            step=4,
            tooltip="Frames made at once (4k+1). The model was trained on 81; longer videos are made in segments.",
            advanced=True,
        ),
        io.Int.Input(
            "segment_overlap",
            default=SCAIL2.segment_overlap,
            min=1,
            max=81,
            step=4,
            tooltip="Frames of the segment before that the next one continues from (4k+1). Trained on 5.",
            advanced=True,
        ),
        io.Int.Input("start_frame", default=0, min=0, max=1 << 20, tooltip="First frame of the driving video to use."),
        io.Int.Input("max_frames", default=0, min=0, max=1 << 20, tooltip="Most frames to use; 0 takes all."),
        io.Boolean.Input(
            "follow_orientation",
            default=True,
            tooltip="Swap width and height when the reference is upright and the size is not, or the reverse.",
            advanced=True,
        ),
        io.Boolean.Input(
            "black_background",
            default=True,
            tooltip="In replacement mode, black out what is around the character in the reference (needs its mask).",
            advanced=True,
        ),
    ]


def _economy() -> list[io.Input]:
    """Inputs that older workflows lack; they stay last, because saved workflows keep widgets by position."""
    unproved = "Off by default: nobody has validated it on real weights."
    return [
        io.Combo.Input(
            "step_cache",
            options=list(STEP_CACHES),
            default=STEP_CACHES[0],
            optional=True,
            tooltip=f"Reuse the model's answer in steps where it changes little. {unproved} Useless below about 20 "
            "steps. easycache decides while it runs; magcache follows a fixed schedule.",
            advanced=True,
        ),
        io.Float.Input(
            "cache_threshold",
            default=Economy().threshold,
            min=0.0,
            max=MAX_THRESHOLD,
            step=0.01,
            optional=True,
            tooltip="How much error the step cache may gather: more is faster and worse. Published for Wan 2.1: 0.05 "
            "for easycache, 0.12 for magcache; 0 reuses nothing.",
            advanced=True,
        ),
        io.Float.Input(
            "guidance_until",
            default=Economy().guidance_until,
            min=0.05,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Share of the steps after which the difference that the prompt makes is kept instead of computed: "
            f"at 0.5 a quarter of the passes is saved. {unproved} 1 computes it in every step; no effect at cfg 1.",
            advanced=True,
        ),
        io.Boolean.Input(
            "draft",
            default=False,
            optional=True,
            tooltip="A quick preview with the same seed and framing: half the width and height, at most the first 33 "
            "frames. The full run will resemble it, not equal it.",
        ),
        io.Combo.Input(
            "grid",
            options=list(GRIDS),
            default=GRIDS[0],
            optional=True,
            tooltip="At which noise levels the steps lie. upstream: as the original. simple: as ComfyUI's scheduler of "
            "that name, so that euler at shift 8 steps where ComfyUI's template for SCAIL-2 does.",
            advanced=True,
        ),
    ]


def _continuation() -> list[io.Input]:
    """Optional, so that they come behind the older ones in saved workflows: ComfyUI lists required widgets first."""
    return [
        io.Combo.Input(
            "history",
            options=list(HISTORIES),
            default=HISTORIES[0],
            optional=True,
            tooltip="What a later segment continues from. pixels: the last frames, decoded and encoded again, as "
            "upstream does it. latents: their latents as they are, so that the VAE's losses do not add up.",
            advanced=True,
        ),
        io.Combo.Input(
            "colour_anchor",
            options=list(ANCHORS),
            default=ANCHORS[0],
            optional=True,
            tooltip="Holds the colours of every segment at those of the first. lab: the pictures' mean and contrast in "
            "Lab (with history pixels, and decoded by Wan VAE Decode). latent: each channel of the latent. Not for "
            "videos whose light or place changes.",
            advanced=True,
        ),
        io.Combo.Input(
            "segment_seed",
            options=list(SEGMENT_SEEDS),
            default=SEGMENT_SEEDS[0],
            optional=True,
            tooltip="The noise of later segments. running: one generator goes on, as upstream. fixed: the same noise "
            "in each, as ComfyUI. advancing: the seed plus the segment's number.",
            advanced=True,
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            optional=True,
            tooltip="Finished segments are kept in output/scail2_resume, so that a cancelled or crashed run goes on "
            "where it stopped when it is queued again with the same inputs. Turn it off to make everything anew.",
            advanced=True,
        ),
        io.Float.Input(
            "driving_fps",
            default=SCAIL2.fps,
            min=0.01,
            max=1000.0,
            step=0.01,
            optional=True,
            tooltip="Frames per second of the driving video, only to warn when it is not the trained 16: connect the "
            "fps of Get Video Components, or of SCAIL-2 Resample FPS.",
            advanced=True,
        ),
    ]


def _core() -> list[io.Input]:
    """What ComfyUI does another way, or brings along."""
    return [
        io.Combo.Input(
            "pose_rope",
            options=list(POSE_ROPES),
            default=POSE_ROPES[0],
            optional=True,
            tooltip="How the driving video's positions are rotated. upstream: the mean over each 2x2 patches, as the "
            "original. midpoint: by their middle, as ComfyUI's own sampling. Results differ a little.",
            advanced=True,
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="The negative prompt, where text is a CONDITIONING. Unused when cfg is 1 or less.",
        ),
    ]
