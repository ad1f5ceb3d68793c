"""The main job: a scene and a prompt to the latents of a clip of any length, segment after segment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..conditioning.streams import encode_references, segment_streams
from ..interface.events import Listener
from ..interface.geometry import LatentSize, latent_frames
from ..interface.planner import RunPlan
from ..interface.requests import SamplingSettings, Scene
from ..interface.segments import SegmentPlan
from ..interface.tiling import Tiling
from ..models.attention import Context
from ..models.scail2 import Scail2Model, Streams
from ..models.vae21 import WanVAE21
from ..runtime.memory import bounded_cache
from ..sampling.guidance import Velocity
from ..sampling.loop import Clamp
from ..sampling.noise import drafted_noise, segment_noise
from .continuing import Continuing
from .denoising import Branches, Denoising, check_widths, dit_in_place
from .finished import FinishedSegments
from .latents import SegmentLatents
from .picture import encode_picture
from .planning import budget_of, forecast, plan_run, planned_tiling
from .prepared import PreparedRun, prepare_run, tell_plan
from .reports import ShareReport
from .store import Handle, enter, get_vae
from .text import TextFeatures


@dataclass(frozen=True, slots=True, eq=False)
class ClipRequest:
    """A picture [1, H, W, 3] in 0..1 for CLIP to see once its final size is known.

    Or, in place of picture and CLIP, the `tokens` [257, dim] that another program's CLIP has made.
    """

    handle: Handle | None
    picture: np.ndarray | None
    tokens: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """Embedded text and CLIP tokens with and without the prompt; no negative one where nothing is guided."""

    positive: Context
    negative: Context | None


def sample_clip(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: ClipRequest,
    scene: Scene,
    settings: SamplingSettings,
    listener: Listener,
    kept: Path | None = None,
) -> SegmentLatents:
    """Check the scene, encode it and denoise every segment. Everything is checked before anything is loaded.

    Finished segments are kept in the folder `kept`, if there is one, and taken from there by the next run of the same
    inputs. Raises RequestError, WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    picture = scene.references[:1] if clip.picture is None else clip.picture
    prepared = prepare_run(picture, scene, settings, listener)
    tell_plan(prepared, scene.fps, listener)
    how = plan_run(dit, vae, None, clip.handle, prepared)
    seen = clip.handle if clip.tokens is None else clip.tokens
    return sample_prepared(dit, vae, text, seen, prepared, how, settings, listener, kept)


def sample_prepared(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: Handle | np.ndarray,
    run: PreparedRun,
    how: RunPlan,
    settings: SamplingSettings,
    listener: Listener,
    kept: Path | None = None,
) -> SegmentLatents:
    """Encode what was prepared and denoise every segment, as planned, that `kept` does not hold already.

    `clip`: CLIP, or the tokens [257, dim] that it made.
    """
    forecast(how, run, settings, budget_of(dit), listener)
    with bounded_cache():
        encoder = (clip,) if isinstance(clip, Handle) else ()
        clip_tokens = encode_picture(clip, run.seen_by_clip, (dit, vae), listener) if encoder else clip
        finished = FinishedSegments.of(kept, dit, vae, text, clip_tokens, run, settings)
        made = finished.leading()
        _tell_finished(len(made), len(run.plan.segments), kept, listener)
        if len(made) == len(run.plan.segments):
            return _joined(made, run, settings)
        enter("sampling", *encoder, dit, vae)
        with dit_in_place(dit, how, listener) as model:
            return _Sampling(
                model=model,
                vae=get_vae(vae, listener),
                text=text,
                clip_tokens=clip_tokens,
                run=run,
                settings=settings,
                tiling=planned_tiling(how),
                listener=listener,
                denoising=Denoising(model=model, settings=settings, segments=len(run.plan.segments), listener=listener),
            ).latents(made, finished)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sampling:
    """A run with its networks in place."""

    model: Scail2Model
    vae: WanVAE21
    text: TextFeatures
    clip_tokens: np.ndarray
    run: PreparedRun
    settings: SamplingSettings
    tiling: Tiling | None
    listener: Listener
    denoising: Denoising

    def latents(self, made: list[np.ndarray], finished: FinishedSegments) -> SegmentLatents:
        """Encode and denoise the segments after those that are made already, and keep each as it is finished."""
        scene, plan = self.run.scene, self.run.plan
        continuing = Continuing(
            vae=self.vae, how=self.settings.continuation, plan=plan, tiling=self.tiling, listener=self.listener
        )
        noise = segment_noise(self.settings.seed, self.settings.continuation.seed, self.run.noise)
        tell = self._report("encoding the reference", len(scene.references))
        references = encode_references(self.vae, scene, self.listener.check_cancelled, self.tiling, tell)
        due = self.settings.passes * (len(plan.segments) - len(made))
        for number, (segment, drawn) in enumerate(zip(plan.segments, noise, strict=False)):
            if number < len(made):
                continue
            size = LatentSize.of_pixels(segment.frames, *scene.size)
            streams = segment_streams(
                self.vae,
                scene,
                references,
                segment,
                self.listener.check_cancelled,
                self.tiling,
                self._report("encoding the driving video", size.frames, number),
            )
            clamp = continuing.history(number, made, size) if segment.history else None
            start = mx.array(drafted_noise(drawn, size.shape))
            latent = np.array(self._denoised(number, streams, start, clamp))
            made.append(continuing.anchored(number, latent, made))
            finished.keep(number, made[-1])
            if self.listener.wants_preview and len(plan.segments) > 1:
                self.listener.preview(_so_far(made, plan))
        self.listener.note(f"{self.denoising.passes.run} of {due} passes of the model were run.")
        return _joined(made, self.run, self.settings)

    def _denoised(self, number: int, streams: Streams, start: mx.array, clamp: Clamp | None) -> mx.array:
        def branches() -> Branches:
            segment, contexts = self.model.prepare(streams, self.settings.pose_rope), self._contexts()

            def under(context: Context) -> Velocity:
                return lambda x, t: self.model(x, t, segment, context, self.listener.check_cancelled)

            return Branches(under(contexts.positive), None if contexts.negative is None else under(contexts.negative))

        return self.denoising.run(number, branches, start, clamp)

    def _contexts(self) -> Contexts:
        """Embed text and picture, for every segment anew: that is nothing beside its first step."""
        text = self.text
        check_widths(self.model.config, text.positive.shape[1], self.clip_tokens.shape[1])
        tokens = mx.array(self.clip_tokens)
        return Contexts(
            self.model.embed_context(mx.array(text.positive), tokens),
            self.model.embed_context(mx.array(text.negative), tokens) if self.settings.is_guided else None,
        )

    def _report(self, phase: str, units: int, number: int | None = None) -> ShareReport:
        return ShareReport.begun(self.listener, phase, units, number, len(self.run.plan.segments))


def _tell_finished(made: int, segments: int, kept: Path | None, listener: Listener) -> None:
    """Say which segments of a run are there already."""
    if made == segments:
        listener.note(f"All of this run was made before with the same inputs, and is taken from {kept}.")
    elif made:
        which = "Segment 1 was" if made == 1 else f"Segments 1 to {made} were"
        listener.note(
            f"{which} made before with the same inputs, and taken from {kept}: the run goes on at segment {made + 1} "
            f"of {segments}."
        )


def _so_far(made: list[np.ndarray], plan: SegmentPlan) -> np.ndarray:
    """Return the finished segments as one latent for a preview: without the frames that they continued from."""
    known = (latent_frames(segment.history) if segment.history else 0 for segment in plan.segments)
    return np.concatenate([latent[:, start:] for latent, start in zip(made, known, strict=False)], axis=1)


def _joined(made: list[np.ndarray], run: PreparedRun, settings: SamplingSettings) -> SegmentLatents:
    return SegmentLatents(tuple(made), run.plan, matches_colours=settings.continuation.anchor == "lab")
