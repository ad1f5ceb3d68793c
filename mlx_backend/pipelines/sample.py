"""The main job: a scene and a prompt to the latents of a clip of any length, segment after segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..conditioning.streams import encode_references, segment_streams
from ..models.attention import Context
from ..models.scail2 import Scail2DiT, Streams
from ..models.vae21 import WanVAE21
from ..runtime.memory import bounded_cache, wired
from ..sampling.economy import Passes, segment_velocity
from ..sampling.guidance import Velocity
from ..sampling.loop import Clamp, denoise
from ..sampling.noise import TorchNoise, drafted_noise
from ..sampling.solvers import make_solver
from ..spec.errors import NumericsError, RequestError
from ..spec.events import Listener
from ..spec.geometry import LatentSize
from ..spec.planner import RunPlan
from ..spec.requests import SamplingSettings, Scene
from ..spec.segments import Segment
from ..spec.tiling import Tiling
from .decode import last_frames
from .latents import SegmentLatents
from .picture import encode_picture
from .planning import budget_of, forecast, plan_run, planned_tiling
from .prepared import PreparedRun, prepare_run
from .reports import ShareReport, StepReport
from .store import Handle, enter, get_dit, get_vae
from .text import TextFeatures


@dataclass(frozen=True, slots=True, eq=False)
class ClipRequest:
    """A picture [1, H, W, 3] in 0..1 for CLIP to see once its final size is known."""

    handle: Handle
    picture: np.ndarray


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
) -> SegmentLatents:
    """Check the scene, encode it and denoise every segment. Everything is checked before anything is loaded.

    Raises RequestError, WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    prepared = prepare_run(clip.picture, scene, settings, listener)
    how = plan_run(dit, vae, None, clip.handle, prepared)
    return sample_prepared(dit, vae, text, clip.handle, prepared, how, settings, listener)


def sample_prepared(
    dit: Handle,
    vae: Handle,
    text: TextFeatures,
    clip: Handle,
    run: PreparedRun,
    how: RunPlan,
    settings: SamplingSettings,
    listener: Listener,
) -> SegmentLatents:
    """Encode what was prepared and denoise every segment, as planned."""
    forecast(how, run, settings, budget_of(dit), listener)
    with bounded_cache():
        clip_tokens = encode_picture(clip, run.seen_by_clip, (dit, vae), listener)
        enter("sampling", clip, dit, vae)
        model, autoencoder = get_dit(dit, listener, how.residency), get_vae(vae, listener)
        model.limit_dispatches(how.backend.dispatch_flops)
        with wired(model.resident_bytes):
            return _Sampling(
                model=model,
                vae=autoencoder,
                text=text,
                clip_tokens=clip_tokens,
                run=run,
                settings=settings,
                tiling=planned_tiling(how),
                listener=listener,
            ).latents()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sampling:
    """A run with its networks in place."""

    model: Scail2DiT
    vae: WanVAE21
    text: TextFeatures
    clip_tokens: np.ndarray
    run: PreparedRun
    settings: SamplingSettings
    tiling: Tiling | None
    listener: Listener
    passes: Passes = field(default_factory=Passes)

    def latents(self) -> SegmentLatents:
        """Encode and denoise segment after segment."""
        scene, plan = self.run.scene, self.run.plan
        noise = TorchNoise(self.settings.seed)
        tell = self._report("encoding the reference", len(scene.references))
        references = encode_references(self.vae, scene, self.listener.check_cancelled, self.tiling, tell)
        made: list[np.ndarray] = []
        for number, segment in enumerate(plan.segments):
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
            clamp = self._history(number, made[-1], segment, size) if segment.history else None
            start = mx.array(drafted_noise(noise.draw(self.run.noise[number]), size.shape))
            made.append(np.array(self._denoised(number, streams, start, clamp)))
        due = self.settings.passes * len(plan.segments)
        self.listener.note(f"{self.passes.run} of {due} passes of the model were run.")
        return SegmentLatents(tuple(made), plan)

    def _denoised(self, number: int, streams: Streams, start: mx.array, clamp: Clamp | None) -> mx.array:
        """Denoise a segment; what float16 cannot hold is done again in bf16."""
        settings, count = self.settings, len(self.run.plan.segments)
        steps = StepReport(
            listener=self.listener,
            steps=settings.steps,
            per_step=settings.passes // settings.steps,
            segment=number,
            segments=count,
        )

        def attempt() -> mx.array:
            solver = make_solver(settings.solver, settings.steps, settings.shift, settings.grid)
            steps.begin()
            return denoise(self._velocity(streams, steps.passed), solver, start, clamp, steps)

        try:
            return attempt()
        except NumericsError as error:
            where = f"In segment {number + 1} of {count}: " if count > 1 else ""
            if not self.model.leave_float16():
                raise NumericsError(f"{where}{error}") from error
            self.listener.warn(
                f"{where}float16 cannot hold the model's values, so the run goes on in bf16, a little slower."
            )
            return attempt()

    def _velocity(self, streams: Streams, passed: Callable[[], None]) -> Velocity:
        segment, contexts = self.model.prepare(streams), self._contexts()

        def under(context: Context) -> Velocity:
            def run(x: mx.array, t: float) -> mx.array:
                v = self.model(x, t, segment, context, self.listener.check_cancelled)
                passed()
                return v

            return run

        negative = None if contexts.negative is None else under(contexts.negative)
        return segment_velocity(under(contexts.positive), negative, self.settings, self.passes)

    def _contexts(self) -> Contexts:
        """Embed text and picture, for every segment anew: that is nothing beside its first step."""
        config, text = self.model.config, self.text
        for name, found, wanted in (
            ("text features", text.positive.shape[1], config.text_dim),
            ("CLIP tokens", self.clip_tokens.shape[1], config.clip_dim),
        ):
            if found != wanted:
                raise RequestError(
                    f"The {name} are {found} wide, but this model takes {wanted}: "
                    "connect the encoders of the snapshot that the model comes from."
                )
        tokens = mx.array(self.clip_tokens)
        return Contexts(
            self.model.embed_context(mx.array(text.positive), tokens),
            self.model.embed_context(mx.array(text.negative), tokens) if self.settings.is_guided else None,
        )

    def _history(self, number: int, before: np.ndarray, segment: Segment, size: LatentSize) -> Clamp:
        """Encode the last frames of the segment before as the clean start of this one."""
        check_cancelled = self.listener.check_cancelled
        tell = self._report("decoding the frames to continue from", before.shape[1], number)
        frames = last_frames(self.vae, before, segment.history, check_cancelled, self.tiling, tell)
        tell = self._report("encoding the frames to continue from", len(frames), number)
        known = self.vae.encode(mx.array(frames) * 2 - 1, check_cancelled, self.tiling, tell)
        clean = mx.pad(known, ((0, 0), (0, size.frames - known.shape[1]), (0, 0), (0, 0)))
        mask = mx.arange(size.frames)[None, :, None, None] < known.shape[1]
        mx.eval(clean, mask)
        return Clamp(mask, clean)

    def _report(self, phase: str, units: int, number: int | None = None) -> ShareReport:
        """Tell that a phase begins, and return what takes the share of it that is done."""
        report = ShareReport(
            listener=self.listener,
            phase=phase,
            total=units,
            units=units,
            segment=0 if number is None else number + 1,
            segments=0 if number is None else len(self.run.plan.segments),
        )
        report(0.0)
        return report
