"""A run on what ComfyUI has encoded: its conditioning and latent in, a latent as its own samplers make it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..conditioning.comfy_streams import ComfyCondition, ComfyStreams, applying, check_size
from ..interface.errors import RequestError
from ..interface.events import Listener
from ..interface.geometry import LATENT_CHANNELS, LatentSize
from ..interface.ledger import Tokens
from ..interface.requests import SamplingSettings
from ..models.attention import Context
from ..models.scail2 import Segment
from ..models.vae21 import normalised
from ..runtime.memory import bounded_cache
from ..sampling.guidance import Velocity
from ..sampling.loop import Clamp
from ..sampling.noise import TorchNoise
from ..sampling.solvers import make_solver
from .denoising import Branches, Denoising, check_widths, dit_in_place
from .latents import raw
from .planning import budget_of, forecast_passes, plan_denoising
from .store import Handle, enter

Schedule = dict[float, ComfyCondition]  # which condition applies at each timestep


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CoreClip:
    """What ComfyUI hands to a sampler for one clip, float32.

    `latent`: raw [16, T, h, w]. `noise_mask` [T, h, w]: 0 where it stays as it is, 1 elsewhere; None: nothing stays.
    `draw`: which draw of the seed's noise it starts from, from 0.
    """

    positive: Sequence[ComfyCondition]
    negative: Sequence[ComfyCondition]
    latent: np.ndarray
    noise_mask: np.ndarray | None = None
    draw: int = 0

    @property
    def size(self) -> LatentSize:
        """Size of the latent."""
        return LatentSize(*self.latent.shape[1:])

    @property
    def references(self) -> int:
        """The most references that a pass has, at least one."""
        return max(1, *(condition.streams.references for condition in (*self.positive, *self.negative)))

    def check(self) -> None:
        """Raise RequestError unless everything fits together."""
        shape = self.latent.shape
        if len(shape) != 4 or shape[0] != LATENT_CHANNELS or not self.latent.size:
            raise RequestError(
                f"The latent has the shape {list(shape)}, but it must be [{LATENT_CHANNELS}, frames, height, width]: "
                "connect the latent of WanSCAILToVideo."
            )
        check_size(self.size)
        for name, conditions in (("positive", self.positive), ("negative", self.negative)):
            for condition in conditions:
                condition.streams.check(self.size)
                if condition.text.ndim != 2 or not condition.text.size:
                    raise RequestError(
                        f"The text of the {name} conditioning has the shape {list(condition.text.shape)}, but it must "
                        "be [tokens, width]: connect CLIP Text Encode, with a CLIP loader of type 'wan'."
                    )
        if self.noise_mask is not None:
            _check_noise_mask(self.noise_mask, shape[1:])


def sample_core(dit: Handle, clips: Sequence[CoreClip], settings: SamplingSettings, listener: Listener) -> np.ndarray:
    """Denoise clips of one size and return them, raw [clips, 16, T, h, w], float32.

    The noise is what ComfyUI draws for the seed. Everything is checked before anything is loaded. Raises RequestError,
    WeightsError, NumericsError, and whatever the listener raises to stop.
    """
    for clip in clips:
        clip.check()
    schedules = [_schedules(clip, settings) for clip in clips]
    _tell_missing(clips[0].positive, listener)
    size, references = clips[0].size, max(clip.references for clip in clips)
    how = plan_denoising(dit, size, references)
    for condition in (condition for clip in clips for condition in (*clip.positive, *clip.negative)):
        seen = condition.clip
        check_widths(how.model.dit, condition.text.shape[1], None if seen is None else seen.shape[1])
    forecast_passes(how, [Tokens.of(size, references)] * len(clips), settings, budget_of(dit), listener)
    generator = TorchNoise(settings.seed)
    draws = [generator.draw(size.shape) for _ in range(1 + max(clip.draw for clip in clips))]
    with bounded_cache():
        enter("sampling", dit)
        with dit_in_place(dit, how, listener) as model:
            denoising = Denoising(model=model, settings=settings, segments=len(clips), listener=listener)
            made = [
                _denoised(denoising, number, clip, schedule, draws[clip.draw])
                for number, (clip, schedule) in enumerate(zip(clips, schedules, strict=True))
            ]
            listener.note(f"{denoising.passes.run} of {len(clips) * settings.passes} passes of the model were run.")
            return np.stack(made)


def _schedules(clip: CoreClip, settings: SamplingSettings) -> dict[str, Schedule]:
    grid = make_solver(settings.solver, settings.steps, settings.shift, settings.grid).schedule

    def schedule(name: str, conditions: Sequence[ComfyCondition]) -> Schedule:
        chosen = applying(name, conditions, grid.sigmas[:-1], settings.shift)
        return {t: conditions[i] for t, i in zip(grid.timesteps, chosen, strict=True)}

    made = {"positive": schedule("positive", clip.positive)}
    if settings.is_guided:
        made["negative"] = schedule("negative", clip.negative)
    return made


def _denoised(
    denoising: Denoising, number: int, clip: CoreClip, schedules: dict[str, Schedule], noise: np.ndarray
) -> np.ndarray:
    known, clamp = None, None
    if clip.noise_mask is not None:
        known, latent = clip.noise_mask == 0, mx.array(clip.latent)
        # ComfyUI takes an empty latent for a normalised one.
        clamp = Clamp(mx.array(known[None]), normalised(latent) if clip.latent.any() else latent)

    def branches() -> Branches:
        embedded = _Embedded(denoising, known, clip.size)
        made = {name: embedded.velocity(schedule) for name, schedule in schedules.items()}
        return Branches(made["positive"], made.get("negative"))

    return raw(np.array(denoising.run(number, branches, mx.array(noise), clamp)))


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """What a clip's conditions are embedded to; what several of them share, once."""

    denoising: Denoising
    known: np.ndarray | None
    size: LatentSize
    _segments: list[tuple[ComfyStreams, Segment]] = field(default_factory=list)

    def velocity(self, schedule: Schedule) -> Velocity:
        """Return the model under the condition that applies at each timestep."""
        model, check_cancelled = self.denoising.model, self.denoising.listener.check_cancelled
        conditions = {id(condition): condition for condition in schedule.values()}
        ready = {key: (self._segment(c.streams), self._context(c)) for key, c in conditions.items()}

        def run(x: mx.array, t: float) -> mx.array:
            return model(x, t, *ready[id(schedule[t])], check_cancelled)

        return run

    def _segment(self, streams: ComfyStreams) -> Segment:
        for known, made in self._segments:
            if streams.equals(known):
                return made
        model, settings = self.denoising.model, self.denoising.settings
        made = model.prepare(streams.streams(self.known, self.size), settings.pose_rope)
        self._segments.append((streams, made))
        return made

    def _context(self, condition: ComfyCondition) -> Context:
        clip = None if condition.clip is None else mx.array(condition.clip)
        return self.denoising.model.embed_context(mx.array(condition.text), clip)


def _tell_missing(conditions: Sequence[ComfyCondition], listener: Listener) -> None:
    missing = [set(c.streams.missing) | ({"clip_vision_output"} if c.clip is None else set()) for c in conditions]
    never = sorted(set.intersection(*missing))
    if never:
        listener.warn(
            f"The conditioning lacks {', '.join(never)}: SCAIL-2 was trained with all of them, and results are better "
            "with them connected to WanSCAILToVideo."
        )


def _check_noise_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise RequestError(
            f"The latent's noise_mask has the shape {list(mask.shape)} where the latent has {list(shape)}: only a mask "
            "of the latent's own size is understood, as WanSCAILToVideo makes it."
        )
    if not np.isin(mask, (0, 1)).all():
        raise RequestError(
            "The latent's noise_mask has values between 0 and 1, but a frame can only be kept (0) or made (1): connect "
            "the latent of WanSCAILToVideo directly."
        )
