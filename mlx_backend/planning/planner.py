"""Before a run: what it will hold in memory phase by phase, how it should be run on this machine, whether it fits."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..interface.errors import RequestError
from ..interface.geometry import LatentSize
from ..interface.latent_space import WAN21, LatentSpace
from ..interface.machine import CACHE_BYTES
from ..interface.segments import SegmentPlan, plan_segments
from ..interface.sizes import (
    SCAIL2_CLIP,
    SCAIL2_DIT,
    SCAIL2_UMT5,
    SCAIL2_VAE,
    ClipConfig,
    UMT5Config,
    VAEConfig,
    WanConfig,
)
from ..interface.tokens import Surroundings, Tokens
from ..interface.variants import MAX_TEXT_TOKENS
from ..members.member import Member
from ..members.scail2 import MEMBER
from .memory import (
    METAL,
    Backend,
    DiTWork,
    Moment,
    clip_moment,
    context_moment,
    packing_moment,
    segment_terms,
    text_moment,
)
from .storage import FLOAT32, Storage
from .vae_memory import VAEWork, between_bytes, decoding, encoding
from .weights import weights

PHASES = ("load", "text", "clip", "encode", "denoise", "decode")
TILES = (0, 512, 384, 256, 192, 128)  # pixels; 0: whole frames
HEAD_GROUPS = (2, 4, 8)  # of heads, where their number can be divided so: each more norms every chunk twice more
SMALL_DISPATCH_FLOPS = 5e11  # chunks of an eighth, 574 rows at 832x480: enough to keep a GPU busy
SMALLEST_RESIDENT_TILE = 256  # smaller ones cost more than streaming the blocks
PROGRAM_BYTES = 500_000_000  # Python and libraries, ComfyUI among them
SHORTEST_SEGMENT = 17  # frames worth proposing
RGB = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSizes:
    """A member's networks and how each is stored, by default SCAIL-2 as published, and the bytes of the DiT's LoRAs."""

    member: Member = MEMBER
    dit: WanConfig = SCAIL2_DIT
    vae: VAEConfig = SCAIL2_VAE
    text: UMT5Config = SCAIL2_UMT5
    clip: ClipConfig = SCAIL2_CLIP
    dit_storage: Storage = Storage("bfloat16")
    vae_storage: Storage = Storage("float32")
    text_storage: Storage = Storage("bfloat16")
    clip_storage: Storage = Storage("float32")
    lora_bytes: int = 0

    @property
    def vae_bytes(self) -> int:
        """Bytes of the VAE."""
        return weights(self.vae).bytes(self.vae_storage)

    def dit_kept_bytes(self, residency: str) -> int:
        """Bytes of the DiT that stay in memory: all, or what lies outside the blocks; LoRAs always."""
        made = weights(self.dit)
        kept = made.rest_bytes if residency == "streamed" else made.bytes
        return kept(self.dit_storage) + self.lora_bytes

    def packed(self, bits: int) -> ModelSizes:
        """Return the same with the DiT's blocks packed in so many bits."""
        return replace(self, dit_storage=replace(self.dit_storage, bits=bits, group_size=Storage().group_size))

    def tokens(self, size: LatentSize, references: int) -> Tokens:
        """Return the tokens of a pass over a segment of this size."""
        tokens = self.member.tokens(size, references)
        return replace(tokens, image=self.clip.tokens) if self.dit.clip_dim else tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is asked to make: pixels, frames of the driving video, pictures, tokens of both prompts."""

    width: int
    height: int
    frames: int
    segment_length: int
    segment_overlap: int
    references: int = 1
    text_tokens: tuple[int, ...] = (MAX_TEXT_TOKENS, MAX_TEXT_TOKENS)
    space: LatentSpace = WAN21

    @property
    def segments(self) -> SegmentPlan:
        """How the driving video is cut."""
        return _segments(self.frames, self.segment_length, self.segment_overlap)

    @property
    def longest(self) -> LatentSize:
        """The latent of the longest segment."""
        return LatentSize.of_pixels(self.segments.segments[0].frames, self.width, self.height, self.space)


_segments = functools.lru_cache(maxsize=64)(plan_segments)  # asked for many times over, also with a thousand windows


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """How a run is done and what it will hold: the largest moment of each phase, in bytes of MLX's memory.

    `beside` is what the process holds that MLX does not count: (what, bytes); `result_bytes`: its frames in pixels,
    which there are from decoding on.
    """

    model: ModelSizes
    job: Job
    backend: Backend
    residency: str
    tile: int
    phases: dict[str, Moment] = field(hash=False)
    beside: tuple[tuple[str, int], ...]
    result_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most that MLX will hold."""
        return max(moment.bytes for moment in self.phases.values())

    @property
    def needed_bytes(self) -> int:
        """The most that the process will hold."""
        return max(map(self.phase_bytes, self.phases))

    @property
    def largest_phase(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=self.phase_bytes)

    def phase_bytes(self, name: str) -> int:
        """Return the most that the process will hold in a phase."""
        result = self.result_bytes if name == "decode" else 0
        return self.phases[name].bytes + result + sum(size for _, size in self.beside)


def predict(
    model: ModelSizes, job: Job, backend: Backend, residency: str, tile: int = 0, only: tuple[str, ...] = PHASES
) -> RunPlan:
    """Predict a run with the DiT "resident" or "streamed" and the VAE in tiles of `tile` pixels (0: whole frames).

    `only`: the phases that the run has.
    """
    vae, dit = ("weights of the VAE", model.vae_bytes), ("weights of the DiT", model.dit_kept_bytes(residency))
    clip_weights = ("weights of CLIP", weights(model.clip).bytes(model.clip_storage))
    measuring = packing_moment(model.dit, model.dit_storage, backend)
    phases = {
        "load": _largest([Moment("loading", (dit, vae)), measuring.beside(dit)]),
        "text": text_moment(model.text, model.text_storage, job.text_tokens, backend),
        "clip": clip_moment(model.clip, model.clip_storage, backend).beside(clip_weights),
        "encode": _largest(_encoding(model, job, backend, tile)).beside(dit, vae),
        "denoise": _largest(_denoising(model, job, backend, residency)).beside(dit, vae),
        "decode": _decoding(model, job, backend, tile).beside(vae),
    }
    what, clips = _around(model, job).pictures
    clip = job.frames * job.width * job.height * RGB * FLOAT32
    beside = (
        (what, clips * clip),
        ("the program", PROGRAM_BYTES),
        ("MLX's buffer cache", CACHE_BYTES if backend.on_gpu else 0),
    )
    present = [name for name in only if name != "clip" or model.dit.clip_dim]
    phases = {name: moment for name, moment in phases.items() if name in present}
    return RunPlan(
        model=model,
        job=job,
        backend=backend,
        residency=residency,
        tile=tile,
        phases=phases,
        beside=beside,
        result_bytes=clip,
    )


def choose(
    model: ModelSizes,
    job: Job,
    budget: int,
    backend: Backend = METAL,
    *,
    residency: str = "auto",
    tile: int | None = None,
    only: tuple[str, ...] = PHASES,
) -> RunPlan:
    """Return the first plan that fits `budget` bytes, the leanest if none does (see `check_fits`).

    Whole frames before tiles, and the DiT in memory before its blocks streamed, but for small tiles; then attention in
    groups of heads, as few as fit; on a GPU, where nothing else helps, small row chunks. Both cost a little time. What
    is given for `residency` and `tile` (pixels, 0: whole frames; None: open) is kept; the run has `only` these phases.
    """
    plans: list[RunPlan] = []
    for how in _backends(model, backend):
        for way in _ways(residency, tile):
            plans.append(predict(model, job, how, *way, only=only))
            if plans[-1].needed_bytes <= budget:
                return plans[-1]
    return min(plans, key=lambda plan: plan.needed_bytes)


def check_fits(plan: RunPlan, budget: int, otherwise: str = "use a machine with more memory") -> None:
    """Raise RequestError, with what would fit instead, when a plan needs more than `budget` bytes.

    `otherwise` is what to do where nothing would.
    """
    if plan.needed_bytes <= budget:
        return
    how = "its blocks streamed" if plan.residency == "streamed" else "all of the DiT in memory"
    tiles = f", the VAE in tiles of {plan.tile}" if plan.tile else ""
    found = list(_remedies(plan, budget))
    what = "; or ".join(found) if found else otherwise
    moment = plan.phases[plan.largest_phase]
    raise RequestError(
        f"This run would need {_gb(plan.needed_bytes)} GB ({plan.job.width} x {plan.job.height} pixels, "
        f"{plan.job.frames} frames, {how}{tiles}), most of it in the phase '{plan.largest_phase}' ({moment.name}), but "
        f"{_gb(budget)} GB may be used: {what}."
    )


def _backends(model: ModelSizes, backend: Backend) -> Iterator[Backend]:
    """Yield leaner and leaner ways of computing a pass."""
    groups = [backend.head_groups, *(count for count in HEAD_GROUPS if model.dit.num_heads % count == 0)]
    yield from (replace(backend, head_groups=count) for count in groups)
    if backend.on_gpu:
        small = replace(backend, dispatch_flops=min(backend.dispatch_flops, SMALL_DISPATCH_FLOPS))
        yield from (replace(small, head_groups=count) for count in groups)


def _ways(residency: str, tile: int | None) -> Iterator[tuple[str, int]]:
    residencies = ("resident", "streamed") if residency == "auto" else (residency,)
    for name in residencies:
        for pixels in TILES if tile is None else (tile,):
            if name == "streamed" or residency != "auto" or not 0 < pixels < SMALLEST_RESIDENT_TILE:
                yield name, pixels


def _remedies(plan: RunPlan, budget: int) -> Iterator[str]:
    """Yield what would make the run fit: another way of running it, else other weights, segments or sizes."""
    model, job = plan.model, plan.job

    def fitting(model: ModelSizes, job: Job) -> RunPlan | None:
        found = choose(model, job, budget, replace(plan.backend, head_groups=1), only=tuple(plan.phases))
        return found if found.needed_bytes <= budget else None

    as_asked = fitting(model, job)
    if as_asked is not None:
        yield f"{_changes(plan, as_asked)} ({_gb(as_asked.needed_bytes)} GB)"
        return
    packed = replace(model, dit_storage=replace(model.dit_storage, bits=4))
    others = {"weights packed in 4 bits": [] if model.dit_storage.bits else [(packed, job)]}
    lengths = range(job.segments.segments[0].frames - 4, max(job.segment_overlap, SHORTEST_SEGMENT - 4), -4)
    if model.member.continues:
        others["segments of {0.job.segment_length} frames"] = [(model, replace(job, segment_length=n)) for n in lengths]
    else:
        others["{0.job.frames} frames"] = [(model, replace(job, frames=n)) for n in lengths]
    sizes = _smaller(job.width, job.height)
    others["{0.job.width} x {0.job.height} pixels"] = [(model, replace(job, width=w, height=h)) for w, h in sizes]
    for name, choices in others.items():
        found = next(filter(None, (fitting(*choice) for choice in choices)), None)
        if found is not None:
            yield f"use {name.format(found)} ({_gb(found.needed_bytes)} GB)"


def _changes(plan: RunPlan, other: RunPlan) -> str:
    changes = []
    if other.residency != plan.residency:
        changes.append("let the blocks be streamed" if other.residency == "streamed" else "keep the DiT in memory")
    if other.tile != plan.tile:
        changes.append(f"let the VAE work in tiles of {other.tile}" if other.tile else "let the VAE work untiled")
    return " and ".join(changes)


def _smaller(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield smaller sizes of about the same shape, the largest first."""
    for percent in range(95, 20, -5):
        size = tuple(max(64, round(side * percent / 3200) * 32) for side in (width, height))
        if size != (width, height):
            yield size


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _largest(moments: Iterable[Moment]) -> Moment:
    return max(moments, key=lambda moment: moment.bytes)


def _denoising(model: ModelSizes, job: Job, backend: Backend, residency: str) -> Iterator[Moment]:
    tokens = model.tokens(job.longest, job.references)
    around = _around(model, job)
    kept = segment_terms(model.dit, tokens, job.longest, around.numbers, backend)
    yield context_moment(model.dit, tokens, model.dit_storage, backend)
    work = DiTWork(model.dit, tokens, model.dit_storage, backend)
    for moment in work.moments(is_streamed=residency == "streamed"):
        yield moment.beside(*kept)


def _around(model: ModelSizes, job: Job) -> Surroundings:
    return model.member.surroundings(job.longest, job.references)


def _vae_moment(name: str, work: VAEWork, *terms: tuple[str, int]) -> Moment:
    found = work.moment()
    between = ("between the halves", between_bytes(work))
    return Moment(f"{name}, {found.name}", (*terms, between, *found.terms))


def _pixels(frames: int, width: int, height: int) -> tuple[str, int]:
    return "pictures", frames * width * height * RGB * FLOAT32


def _encoding(model: ModelSizes, job: Job, backend: Backend, tile: int) -> Iterator[Moment]:
    """What the member shows the VAE, and what a segment continues from."""
    width, height, plan = job.width, job.height, job.segments
    yield Moment("nothing to encode", ())
    around = _around(model, job)
    for what, frames, columns, rows in (*around.shared[:1], *around.encoded):
        work = encoding(model.vae, frames, rows, columns, backend, tile)
        yield _vae_moment(f"encoding {what}", work, _pixels(frames, columns, rows))
    if len(plan.segments) > 1:
        latent = job.longest
        work = decoding(model.vae, latent.frames, latent.height, latent.width, backend, tile)
        yield _vae_moment("decoding the end of a segment", work, _pixels(4, width, height))
        work = encoding(model.vae, plan.overlap, height, width, backend, tile)
        yield _vae_moment("encoding the start of a segment", work, _pixels(plan.overlap, width, height))


def _decoding(model: ModelSizes, job: Job, backend: Backend, tile: int) -> Moment:
    latent = job.longest
    work = decoding(model.vae, latent.frames, latent.height, latent.width, backend, tile)
    channels, frames, height, width = latent.shape
    latents = ("latents, as given and denormalised", 2 * channels * frames * height * width * FLOAT32)
    side = tile or max(job.width, job.height)
    # Up to four frames that a latent one makes, each by itself and together.
    pieces = _pixels(8, min(job.width, side), min(job.height, side))
    return _vae_moment("decoding", work, latents, pieces)
