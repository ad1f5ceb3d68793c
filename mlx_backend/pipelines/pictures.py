"""Runs on pictures and a prompt: whatever member of the family sees them, segments continue in one way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..interface.errors import RequestError
from ..interface.events import Listener
from ..interface.geometry import LatentSize
from ..interface.pictures import Pictures
from ..interface.requests import SamplingSettings, Scene
from ..interface.segments import SegmentPlan
from ..interface.tokens import Tokens
from ..media.footage import Footage
from ..members.member import EncodedPictures, Encoding, Member, PreparedRun
from ..models.attention import Context
from ..models.conditioning import Known
from ..models.wan import WanModel
from ..sampling.noise import drafted_noise, segment_noise
from .continuing import Continuing
from .denoising import Conditions, MakeConditions, check_widths
from .latents import SegmentLatents
from .limits import held_to_limits
from .picture import encode_picture
from .planning import plan_run, planned_tiling
from .reports import ShareReport
from .run import Run, Session
from .sample import sample
from .store import Handle, Models, check_models, get_vae
from .text import Prompts, TextFeatures, encode_prompts


@dataclass(frozen=True, slots=True, eq=False)
class PictureMaterial:
    """A prepared request of a member, and what its words and its picture are encoded by, or were already.

    `clip_tokens` [257, dim]: what another program's CLIP has made, in place of ours. `start` [C, T, h, w]: the noise of
    the only segment, in place of what the seed draws.
    """

    member: Member
    run: PreparedRun
    text: Prompts | TextFeatures
    clip_tokens: np.ndarray | None = None
    start: np.ndarray | None = None

    @property
    def sizes(self) -> tuple[LatentSize, ...]:
        """See Material."""
        size, space = self.run.scene.size, self.member.space
        return tuple(LatentSize.of_pixels(segment.frames, *size, space) for segment in self.plan.segments)

    @property
    def tokens(self) -> list[Tokens]:
        """See Material."""
        return self.member.tokens_of(self.run)

    @property
    def plan(self) -> SegmentPlan:
        """See Material."""
        return self.run.plan

    @property
    def stages(self) -> tuple[str, ...]:
        """See Material."""
        shows_clip = bool(self.run.seen_by_clip) and self.clip_tokens is None
        made = {"text": isinstance(self.text, Prompts), "clip": shows_clip, "pictures": True}
        return tuple(name for name, is_made in made.items() if is_made)

    @property
    def described(self) -> str:
        """See Material."""
        return self.run.scene.described

    @property
    def prompts(self) -> Prompts | None:
        """See Material."""
        return self.text if isinstance(self.text, Prompts) else self.text.prompts

    def parts_of(self, models: Models) -> tuple[Handle, ...]:
        """See Material."""
        encoder = models.text_encoder if isinstance(self.text, Prompts) else self.text.encoder
        return tuple(part for part in (encoder, models.clip, models.vae) if part is not None)

    def ready(self, run: Run, session: Session) -> PictureMaterial:
        """See Material."""
        text, tokens, listener = self.text, self.clip_tokens, session.listener
        if isinstance(text, Prompts):
            text = encode_prompts(run.models.text_encoder, text.positive, text.negative, listener)
        if tokens is None and self.run.seen_by_clip:
            others = (*run.models.experts, run.models.vae)
            seen = (encode_picture(run.models.clip, each, others, listener) for each in self.run.seen_by_clip)
            tokens = np.concatenate(list(seen))
        return replace(self, text=text, clip_tokens=tokens)

    def noise(self, settings: SamplingSettings) -> Iterator[np.ndarray]:
        """See Material."""
        if self.start is not None:
            yield self.start
            return
        drawn = segment_noise(settings.seed, settings.continuation.seed, self.run.noise)
        for size, noise in zip(self.sizes, drawn, strict=False):
            yield drafted_noise(noise, size.shape)

    def arrays(self) -> Iterator[np.ndarray | None]:
        """See Material."""
        yield from (self.text.positive, self.text.negative, self.clip_tokens, *self.run.scene.arrays())
        if self.start is not None:
            yield self.start

    def arrays_of(self, number: int) -> tuple[str, Iterator[np.ndarray]]:
        """See Material."""
        segment = self.plan.segments[number]
        return f"{segment} {self.run.noise[number]}", self.run.scene.arrays_of(segment)

    def opened(self, run: Run, session: Session) -> _Opened:
        """See Material."""
        listener, settings = session.listener, run.settings
        vae, tiling = get_vae(run.models.vae, listener), planned_tiling(run.how)

        def begin(phase: str, units: int, number: int | None) -> ShareReport:
            return ShareReport.begun(listener, phase, units, number, len(self.plan.segments))

        how = Encoding(vae=vae, tiling=tiling, check_cancelled=listener.check_cancelled, begin=begin)
        continuing = Continuing(vae=vae, how=settings.continuation, plan=self.plan, tiling=tiling, listener=listener)
        return _Opened(settings, self, self.run.scene.encode(how, settings), continuing)


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    settings: SamplingSettings
    material: PictureMaterial
    pictures: EncodedPictures
    continuing: Continuing

    def segment(self, number: int, made: list[np.ndarray]) -> tuple[Known | None, MakeConditions]:
        """See OpenedMaterial."""
        segment = self.material.plan.segments[number]
        known = self.pictures.known(segment)
        if segment.history:
            known = self.continuing.history(number, made, self.material.sizes[number])
        condition = self.pictures.condition(number, segment, known)

        def conditions(model: WanModel) -> Conditions:
            positive, negative = self._contexts(model)
            with_prompt = condition(model, positive)
            without = None if negative is None else with_prompt.under(negative)
            return Conditions(lambda _: with_prompt, None if without is None else lambda _: without)

        return known, conditions

    def finished(self, number: int, latent: np.ndarray, made: list[np.ndarray]) -> np.ndarray:
        """See OpenedMaterial."""
        return self.continuing.anchored(number, latent, made)

    def _contexts(self, model: WanModel) -> tuple[Context, Context | None]:
        """Embed text and picture, for every segment anew: that is nothing beside its first step."""
        text, tokens = self.material.text, self.material.clip_tokens
        check_widths(model.config, text.positive.shape[1], None if tokens is None else tokens.shape[1])
        clip = None if tokens is None else mx.array(tokens)
        positive = model.embed_context(mx.array(text.positive), clip)
        if not self.settings.is_guided:
            return positive, None
        return positive, model.embed_context(mx.array(text.negative), clip)


def prepare(
    models: Models,
    text: Prompts | TextFeatures,
    scene: Scene,
    settings: SamplingSettings,
    session: Session,
    *,
    clip_picture: np.ndarray | None = None,
    clip_tokens: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> Run:
    """Check a request and plan it, with nothing loaded. Raises RequestError and WeightsError.

    CLIP sees `clip_picture` [1, H, W, 3] where one is given, else the member's choice, unless there are `clip_tokens`.
    `start` [C, T, h, w] is the noise of a clip of one segment, in place of what the seed draws.
    """
    listener = session.listener
    scene, settings = held_to_limits(models.dit, scene, settings, listener)
    models = models.needed
    check_models(models)
    member = models.dit.store.member
    prepared = member.prepare(clip_picture, scene, settings, listener)
    tell_plan(prepared.plan, scene.fps, listener)
    how = plan_run(models.dit, models.vae, models.text_encoder, models.clip, prepared)
    if start is not None:
        _check_start(start, prepared)
    material = PictureMaterial(member, prepared, text, clip_tokens, start)
    return Run(models=models, material=material, settings=settings, how=how, facts=_facts(scene))


def sample_pictures(run: Run, session: Session, *, decodes: bool = False) -> SegmentLatents:
    """Return the latents of a run on pictures, and how they join to one clip; `decodes`: see `sample`."""
    made = sample(run, session, decodes)
    return SegmentLatents(
        made,
        run.material.plan,
        matches_colours=run.settings.continuation.anchor == "lab",
        space=run.models.dit.store.member.space,
    )


def _check_start(start: np.ndarray, run: PreparedRun) -> None:
    """Raise RequestError for noise of another shape than that of the run."""
    wanted = run.noise[0]
    if len(run.noise) > 1 or start.shape != wanted or not np.isfinite(start).all():
        raise RequestError(
            f"The noise has the shape {list(start.shape)}, but this run is {len(run.noise)} segment"
            f"{'s' * (len(run.noise) != 1)} of {list(wanted)}, and needs finite numbers: give noise of that shape."
        )


def tell_plan(plan: SegmentPlan, fps: float, listener: Listener) -> None:
    """Note how long the clip will be at the driving video's rate, and in how many segments it is made."""
    frames, segments = plan.frames, len(plan.segments)
    if frames > 1:
        parts = "1 segment" if segments == 1 else f"{segments} segments that share {plan.overlap} frames each"
        listener.note(f"{frames} frames, {frames / fps:.2f} s at {fps:g} fps, in {parts}.")


def _facts(scene: Scene) -> dict[str, Any]:
    """Return what the report says of a request: every field that is no picture, and how large those are."""
    values = {field.name: getattr(scene, field.name) for field in fields(scene)}
    return {
        "scene": {name: value for name, value in values.items() if isinstance(value, (str, int, float, bool))},
        "pictures": {name: _size(value) for name, value in values.items() if isinstance(value, (np.ndarray, Footage))},
    }


def _size(pictures: Pictures) -> str:
    count, height, width = pictures.shape[:3]
    return f"{count} of {width}x{height}"
