"""Runs on what ComfyUI has encoded: its conditioning and latents in, latents as its own samplers make them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..interface.errors import RequestError
from ..interface.events import Listener
from ..interface.geometry import LatentSize
from ..interface.latent_space import WAN21
from ..interface.requests import SamplingSettings
from ..interface.tokens import Tokens
from ..interface.variants import MODES
from ..members.scail2 import MEMBER
from ..members.scail2.comfy_streams import ComfyCondition, applying, check_size
from ..models.attention import Context
from ..models.conditioning import Conditioning, Known
from ..models.wan import WanModel
from ..sampling.noise import TorchNoise
from ..sampling.solvers import make_solver
from .denoising import AtTime, Conditions, MakeConditions, check_widths
from .planning import plan_denoising
from .run import Run, Session
from .sample import sample
from .store import Handle, Models, check_models

Timeline = dict[float, ComfyCondition]  # which condition applies at each timestep


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ComfyLatent:
    """What ComfyUI hands to a sampler for one of a batch, float32.

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

    def known(self) -> Known | None:
        """Return the frames that stay; ComfyUI takes an empty latent for a normalised one."""
        if self.noise_mask is None:
            return None
        clean = WAN21.normalised(self.latent) if self.latent.any() else self.latent
        return Known(mx.array((self.noise_mask == 0)[None]), mx.array(clean))

    def check(self) -> None:
        """Raise RequestError unless everything fits together."""
        shape = self.latent.shape
        if len(shape) != 4 or shape[0] != WAN21.channels or not self.latent.size:
            raise RequestError(
                f"The latent has the shape {list(shape)}, but it must be [{WAN21.channels}, frames, height, width]: "
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


@dataclass(frozen=True, slots=True, eq=False)
class ComfyMaterial:
    """A batch of one size, each a clip of its own; `range_shift` is the shift that ranges of conditions count in."""

    batch: Sequence[ComfyLatent]
    range_shift: float

    @property
    def sizes(self) -> tuple[LatentSize, ...]:
        """See Material."""
        return tuple(one.size for one in self.batch)

    @property
    def references(self) -> int:
        """The most references that a pass has."""
        return max(one.references for one in self.batch)

    @property
    def tokens(self) -> list[Tokens]:
        """See Material."""
        return [MEMBER.tokens(size, self.references) for size in self.sizes]

    @property
    def plan(self) -> None:
        """See Material."""
        return

    @property
    def stages(self) -> tuple[()]:
        """See Material."""
        return ()

    @property
    def described(self) -> str:
        """See Material."""
        return f"ComfyUI {self.range_shift}"

    @property
    def prompts(self) -> None:
        """See Material."""
        return

    def parts_of(self, models: Models) -> tuple[()]:  # noqa: ARG002 - Material
        """See Material."""
        return ()

    def ready(self, run: Run, session: Session) -> ComfyMaterial:  # noqa: ARG002 - Material
        """See Material."""
        return self

    def noise(self, settings: SamplingSettings) -> Iterator[np.ndarray]:
        """See Material: the noise is what ComfyUI draws for the seed."""
        generator = TorchNoise(settings.seed)
        draws = [generator.draw(self.sizes[0].shape) for _ in range(1 + max(one.draw for one in self.batch))]
        yield from (draws[one.draw] for one in self.batch)

    def arrays(self) -> tuple[()]:
        """See Material."""
        return ()

    def arrays_of(self, number: int) -> tuple[str, list[np.ndarray | None]]:
        """See Material."""
        one = self.batch[number]
        words, arrays = [f"draw {one.draw}"], [one.latent, one.noise_mask]
        for condition in (*one.positive, None, *one.negative):
            if condition is None:
                words.append("without the prompt")
                continue
            words.append(f"{condition.start} {condition.end} {condition.streams.described}")
            arrays += [condition.text, condition.clip, *condition.streams.arrays()]
        return "; ".join(words), arrays

    def opened(self, run: Run, session: Session) -> _Opened:  # noqa: ARG002 - Material
        """See Material."""
        return _Opened(run.settings, self)


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    settings: SamplingSettings
    material: ComfyMaterial

    def segment(self, number: int, made: list[np.ndarray]) -> tuple[Known | None, MakeConditions]:  # noqa: ARG002
        """See OpenedMaterial."""
        one = self.material.batch[number]
        known = one.known()
        timelines = _timelines(one, self.settings, self.material.range_shift)

        def conditions(model: WanModel) -> Conditions:
            embedded = _Embedded(model, self.settings.pose_rope, known, one.size)
            made = {name: embedded.at_time(timeline) for name, timeline in timelines.items()}
            return Conditions(made["positive"], made.get("negative"))

        return known, conditions

    def finished(self, number: int, latent: np.ndarray, made: list[np.ndarray]) -> np.ndarray:  # noqa: ARG002
        """See OpenedMaterial."""
        return latent


def prepare_comfy(
    dit: Handle,
    batch: Sequence[ComfyLatent],
    settings: SamplingSettings,
    session: Session,
    *,
    range_shift: float | None = None,
) -> Run:
    """Check a batch of latents of one size with their conditions, and plan the run, with nothing loaded.

    `range_shift`: the shift of the schedule that ranges of conditions count in, where it is not that of the steps.
    Raises RequestError and WeightsError.
    """
    for one in batch:
        one.check()
    check_models(Models(dit))
    material = ComfyMaterial(batch, settings.shift if range_shift is None else range_shift)
    for one in batch:
        _timelines(one, settings, material.range_shift)
    _tell_missing(batch[0].positive, session.listener)
    how = plan_denoising(dit, batch[0].size, material.references)
    for condition in (condition for one in batch for condition in (*one.positive, *one.negative)):
        seen = condition.clip
        check_widths(how.model.dit, condition.text.shape[1], None if seen is None else seen.shape[1])
    mode = MODES[any(condition.streams.replacement for condition in batch[0].positive)]
    facts = {"scene": {"mode": mode, "range_shift": material.range_shift}, "pictures": {}}
    return Run(models=Models(dit), material=material, settings=settings, how=how, facts=facts)


def sample_comfy(run: Run, session: Session) -> np.ndarray:
    """Denoise a batch that `prepare_comfy` has checked; return it raw, [batch, 16, T, h, w], float32."""
    return np.stack([WAN21.raw(latent) for latent in sample(run, session)])


def _timelines(one: ComfyLatent, settings: SamplingSettings, range_shift: float) -> dict[str, Timeline]:
    schedule = make_solver(settings.solver, settings.steps, settings.shift, settings.grid).schedule

    def timeline(name: str, conditions: Sequence[ComfyCondition]) -> Timeline:
        chosen = applying(name, conditions, schedule.sigmas[:-1], range_shift)
        return {t: conditions[i] for t, i in zip(schedule.timesteps, chosen, strict=True)}

    made = {"positive": timeline("positive", one.positive)}
    if settings.is_guided:
        made["negative"] = timeline("negative", one.negative)
    return made


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """What the conditions of one latent are embedded to; what several of them share, once."""

    model: WanModel
    pose_rope: str
    known: Known | None
    size: LatentSize
    _made: list[tuple[ComfyCondition, Conditioning]] = field(default_factory=list)

    def at_time(self, timeline: Timeline) -> AtTime:
        """Return what applies at each timestep."""
        conditions = {id(condition): condition for condition in timeline.values()}
        ready = {key: self._conditioning(condition) for key, condition in conditions.items()}
        return lambda t: ready[id(timeline[t])]

    def _conditioning(self, condition: ComfyCondition) -> Conditioning:
        context = self._context(condition)
        for other, made in self._made:
            if condition.streams.equals(other.streams):
                return made.under(context)
        streams = condition.streams.streams()
        made = self.model.condition(context, self.size.shape[1:], streams, self.known, self.pose_rope)
        self._made.append((condition, made))
        return made

    def _context(self, condition: ComfyCondition) -> Context:
        clip = None if condition.clip is None else mx.array(condition.clip)
        return self.model.embed_context(mx.array(condition.text), clip)


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
