"""The main job: a scene and a prompt to the latents of a clip of any length, segment after segment."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..conditioning.clip import encode_clip
from ..conditioning.scene import PreparedScene, prepare_picture, prepare_scene
from ..conditioning.streams import encode_references, segment_streams
from ..models.attention import Context
from ..models.scail2 import Scail2DiT, Streams
from ..models.vae21 import WanVAE21
from ..runtime.memory import bounded_cache
from ..sampling.guidance import Velocity, guided
from ..sampling.loop import Clamp, denoise
from ..sampling.noise import TorchNoise
from ..sampling.solvers import make_solver
from ..spec.errors import NumericsError, RequestError
from ..spec.events import Listener, Progress
from ..spec.geometry import LatentSize
from ..spec.requests import SamplingSettings, Scene
from ..spec.segments import Segment, SegmentPlan, plan_segments
from .decode import last_frames
from .latents import SegmentLatents
from .store import Handle, enter, get_clip, get_dit, get_vae
from .text import TextFeatures


@dataclass(frozen=True, slots=True, eq=False)
class ClipRequest:
    """A picture [1, H, W, 3] in 0..1 for CLIP to see once its final size is known."""

    handle: Handle
    picture: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRun:
    """What is left of a scene to compute once it has been checked; `seen_by_clip` is the picture [H, W, 3]."""

    scene: PreparedScene
    seen_by_clip: np.ndarray
    plan: SegmentPlan


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """Embedded text and CLIP tokens with and without the prompt."""

    positive: Context
    negative: Context


def sample_clip(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: ClipRequest,
    scene: Scene,
    settings: SamplingSettings,
    listener: Listener,
) -> SegmentLatents:
    """Check the scene, encode it and denoise every segment. Everything is checked before anything is loaded.

    Raises RequestError, WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    prepared = prepare_run(clip.picture, scene, settings, listener)
    return sample_prepared(dit, vae, text, clip.handle, prepared, settings, listener)


def prepare_run(clip_picture: np.ndarray, scene: Scene, settings: SamplingSettings, listener: Listener) -> PreparedRun:
    """Check and resize the pictures of a run and cut it into segments, with no network loaded. Raises RequestError."""
    prepared = prepare_scene(scene, listener)
    seen_by_clip = prepare_picture(clip_picture, prepared, scene, listener)
    plan = plan_segments(len(prepared.driving), settings.segment_length, settings.segment_overlap)
    return PreparedRun(prepared, seen_by_clip, plan)


def sample_prepared(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: Handle,
    run: PreparedRun,
    settings: SamplingSettings,
    listener: Listener,
) -> SegmentLatents:
    """Encode what was prepared and denoise every segment."""
    with bounded_cache():
        enter("clip", clip, dit, vae)
        listener.check_cancelled()
        clip_tokens = encode_clip(get_clip(clip, listener), run.seen_by_clip)
        enter("sampling", clip, dit, vae)
        model, autoencoder = get_dit(dit, listener), get_vae(vae, listener)
        contexts = _embed(model, text, clip_tokens)
        return _sample_segments(model, autoencoder, contexts, run.scene, run.plan, settings, listener)


def _embed(model: Scail2DiT, text: TextFeatures, clip_tokens: np.ndarray) -> Contexts:
    for name, found, wanted in (
        ("text features", text.positive.shape[1], model.config.text_dim),
        ("CLIP tokens", clip_tokens.shape[1], model.config.clip_dim),
    ):
        if found != wanted:
            raise RequestError(
                f"The {name} are {found} wide, but this model takes {wanted}: "
                "connect the encoders of the snapshot that the model comes from."
            )
    tokens = mx.array(clip_tokens)
    return Contexts(*(model.embed_context(mx.array(t), tokens) for t in (text.positive, text.negative)))


def _sample_segments(
    model: Scail2DiT,
    vae: WanVAE21,
    contexts: Contexts,
    scene: PreparedScene,
    plan: SegmentPlan,
    settings: SamplingSettings,
    listener: Listener,
) -> SegmentLatents:
    noise = TorchNoise(settings.seed)
    count = len(plan.segments)
    listener.progress(Progress(phase="encoding the reference", done=0, total=1))
    references = encode_references(vae, scene, listener.check_cancelled)
    latents: list[np.ndarray] = []
    for number, segment in enumerate(plan.segments):
        listener.progress(
            Progress(phase="encoding the driving video", done=0, total=1, segment=number + 1, segments=count)
        )
        streams = segment_streams(vae, scene, references, segment, listener.check_cancelled)
        size = LatentSize.of_pixels(segment.frames, *scene.size)
        clamp = _history(vae, latents[-1], segment, size, listener) if segment.history else None
        steps = _StepReport(listener, settings.steps, number, count)
        try:
            latent = denoise(
                _velocity(model, streams, contexts, settings.cfg, listener),
                make_solver(settings.solver, settings.steps, settings.shift),
                mx.array(noise.draw(size.shape)),
                clamp,
                steps,
            )
        except NumericsError as error:
            if count == 1:
                raise
            raise NumericsError(f"In segment {number + 1} of {count}: {error}") from error
        latents.append(np.array(latent))
    return SegmentLatents(tuple(latents), plan)


def _velocity(model: Scail2DiT, streams: Streams, contexts: Contexts, cfg: float, listener: Listener) -> Velocity:
    segment = model.prepare(streams)

    def under(context: Context) -> Velocity:
        return lambda x, t: model(x, t, segment, context, listener.check_cancelled)

    return guided(under(contexts.positive), under(contexts.negative), cfg)


def _history(vae: WanVAE21, before: np.ndarray, segment: Segment, size: LatentSize, listener: Listener) -> Clamp:
    """Encode the last frames of the segment before as the clean start of this one."""
    frames = last_frames(vae, before, segment.history, listener.check_cancelled)
    known = vae.encode(mx.array(frames) * 2 - 1, listener.check_cancelled)
    clean = mx.pad(known, ((0, 0), (0, size.frames - known.shape[1]), (0, 0), (0, 0)))
    mask = mx.arange(size.frames)[None, :, None, None] < known.shape[1]
    mx.eval(clean, mask)
    return Clamp(mask, clean)


@dataclass(frozen=True, slots=True)
class _StepReport:
    """Counts the steps of all segments for the progress bar."""

    listener: Listener
    steps: int
    segment: int
    segments: int

    def __call__(self, i: int) -> None:
        self.listener.progress(
            Progress(
                phase="sampling",
                done=self.segment * self.steps + i + 1,
                total=self.segments * self.steps,
                segment=self.segment + 1,
                segments=self.segments,
                step=i + 1,
                steps=self.steps,
            )
        )
