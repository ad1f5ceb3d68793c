"""How a run will be done on this machine: sizes from the files' headers, a plan that fits, a forecast for the user."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..interface.chunks import dispatch_limit
from ..interface.errors import RequestError
from ..interface.events import Listener
from ..interface.geometry import LatentSize
from ..interface.machine import Allowance, memory_budget
from ..interface.requests import SamplingSettings
from ..interface.segments import Segment, SegmentPlan
from ..interface.tiling import TILE_STEP, Tiling
from ..interface.tokens import Tokens
from ..interface.variants import RESIDENCIES
from ..interface.workload import Workload
from ..members.member import Member, PreparedRun
from ..members.scail2 import MEMBER as SCAIL2_MEMBER
from ..planning.memory import Backend
from ..planning.planner import PHASES, TILES, Job, ModelSizes, RunPlan, check_fits, choose, predict
from ..planning.workload import STAGES, workload
from ..runtime.machine import free_memory, this_machine
from ..runtime.probe import Probe, probe
from ..weights.checkpoints.components import PartSizes
from .latents import SegmentLatents
from .store import Handle

SHORTEST = 5  # frames of a segment that can overlap another


def plan_run(
    dit: Handle | None, vae: Handle | None, text_encoder: Handle | None, clip: Handle | None, run: PreparedRun
) -> RunPlan:
    """Choose how to do a run within the memory that the DiT's store allows. Nothing is loaded.

    A part that is None counts as published; without a DiT, the machine alone says what is allowed. Raises RequestError,
    with what would fit, when it cannot be done, and WeightsError for a damaged file.
    """
    given = {"dit": dit, "vae": vae, "t5_encoder": text_encoder, "clip": clip}
    model = model_sizes(
        SCAIL2_MEMBER if dit is None else dit.store.member,
        {component: sizes_of(part) for component, part in given.items() if part is not None},
    )
    job = _job(run.plan, *run.scene.size, len(run.scene.references))
    return _choose(dit, model, replace(job, space=model.member.space))


def plan_denoising(dit: Handle, size: LatentSize, references: int) -> RunPlan:
    """Choose how to denoise a clip whose pictures and text ComfyUI has encoded; see `plan_run`.

    ComfyUI's own VAE, which stays in memory, counts as one of ours.
    """
    frames, width, height = size.pixels
    job = _job(SegmentPlan((Segment(0, frames, 0),), frames, 1), width, height, references)
    return _choose(dit, model_sizes(dit.store.member, {"dit": sizes_of(dit)}), job, ("load", "denoise"))


def _choose(dit: Handle | None, model: ModelSizes, job: Job, only: tuple[str, ...] = PHASES) -> RunPlan:
    loras = () if dit is None else dit.loras
    model = replace(model, lora_bytes=sum(lora.path.stat().st_size for lora in loras if lora.path.is_file()))
    allowed = allowance_of(dit)
    budget = allowed.bytes
    limit = dispatch_limit(machine_probe().rate.flops_per_s)
    machine = this_machine()
    compute = machine.block_dtype if dit is None else sizes_of(dit).compute
    backend = Backend(on_gpu=machine.on_gpu, compute=compute, dispatch_flops=limit)
    residency = RESIDENCIES[0] if dit is None else dit.store.residency
    plan = choose(model, job, budget, backend, residency=residency, only=only)
    try:
        check_fits(plan, budget, allowed.otherwise)
    except RequestError as refusal:
        raise RequestError(f"{refusal} {allowed.advice}".strip()) from None
    return plan


def expected(plan: RunPlan, tokens: Sequence[Tokens], settings: SamplingSettings, stages: Collection[str]) -> Workload:
    """Return what a run computes, at this machine's rate; see planning/workload.py."""
    return workload(plan, tokens, settings, machine_probe().rate.flops_per_s, stages)


def forecast(
    plan: RunPlan,
    tokens: Sequence[Tokens],
    settings: SamplingSettings,
    budget: int,
    listener: Listener,
    stages: Collection[str] = STAGES,
) -> None:
    """Tell the user how segments whose passes have so many tokens will be made, in what memory, how fast at best.

    `stages`: what the run has beside its passes, of STAGES; their time is told too.
    """
    found = machine_probe()
    parts = expected(plan, tokens, settings, stages).parts
    flops = sum(part.flops for part in parts if part.network == "dit")
    beside = sum(part.flops for part in parts) - flops
    count = settings.passes * len(tokens)
    groups = plan.backend.head_groups
    attention = f", attention in {groups} groups of heads" if groups > 1 else ""
    residency = "its blocks streamed from disk" if plan.residency == "streamed" else "all of it in memory"
    tiles = f", the VAE in tiles of {plan.tile} pixels" if plan.tile else ""
    listener.note(
        f"{found.sentence} The model runs with {residency}{attention}{tiles}, in about "
        f"{plan.needed_bytes / 1e9:.1f} of {budget / 1e9:.1f} GB. {found.forecast(flops / count, count, beside)}"
    )


def planned_tiling(plan: RunPlan) -> Tiling | None:
    """Return the plan's tiles for encoding, None for whole pictures."""
    return _tiling(plan.tile)


def decode_tiling(vae: Handle, latents: SegmentLatents) -> Tiling | None:
    """Return the largest tiles in which the latents can be decoded in the memory allowed, None: whole frames."""
    height, width = latents.segments[0].shape[2:]
    space = latents.space
    job = replace(_job(latents.plan, space.stride * width, space.stride * height), space=space)
    model = model_sizes(SCAIL2_MEMBER, {"vae": sizes_of(vae)})
    backend = Backend(on_gpu=this_machine().on_gpu, compute="float32")
    budget = budget_of(vae)
    for tile in TILES:
        plan = predict(model, job, backend, "streamed", tile)
        needed = plan.phase_bytes("decode")
        if needed <= budget:
            break
    return _tiling(tile)


def sizes_of(handle: Handle) -> PartSizes:
    """Return the sizes of a handle's network and how it will be stored, from its file's header. Raises WeightsError."""
    return handle.store.sizes(handle.component)


def budget_of(handle: Handle | None) -> int:
    """Return the bytes that a run may take: what the user allows with the handle, or what the machine does."""
    return allowance_of(handle).bytes


def allowance_of(handle: Handle | None) -> Allowance:
    """Return what the user allows with the handle, or the smaller of the machine's share and what is free now."""
    machine = this_machine()
    allowed = 0 if handle is None else handle.store.memory
    if allowed:
        return Allowance(allowed, is_chosen=True)
    free, elsewhere = free_memory(), None if handle is None else handle.store.elsewhere
    if free is not None and elsewhere is not None:
        free += elsewhere.held_bytes  # the networks there are those of the run
    return Allowance(memory_budget(machine.memory_bytes or 0, machine.working_set_bytes or 0), free)


@functools.cache
def machine_probe() -> Probe:
    """Measure this machine, once per process."""
    return probe()


def _job(plan: SegmentPlan, width: int, height: int, references: int = 1) -> Job:
    """Return what a run is asked to make, as planning has it: there a segment overlaps, even if it is the only one."""
    first = plan.segments[0].frames
    is_alone = len(plan.segments) == 1
    return Job(
        width=width,
        height=height,
        frames=plan.frames,
        segment_length=max(first, SHORTEST) if is_alone else first,
        segment_overlap=1 if is_alone else plan.overlap,
        references=references,
    )


def _tiling(tile: int) -> Tiling | None:
    return Tiling(tile, TILE_STEP) if tile else None


def model_sizes(member: Member, parts: Mapping[str, PartSizes]) -> ModelSizes:
    """Return the sizes of a member whose components that are not among `parts` are as published."""
    named = {name.replace("t5_encoder", "text"): part for name, part in parts.items()}
    configs = {name: part.config for name, part in named.items()}
    return ModelSizes(member=member, **configs, **{f"{name}_storage": part.storage for name, part in named.items()})
