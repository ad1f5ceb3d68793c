"""A planned run as a workload: the FLOPs of text, CLIP, VAE and DiT, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache

from ..interface.geometry import LatentSize
from ..interface.requests import SamplingSettings
from ..interface.segments import Segment
from ..interface.tokens import Tokens
from ..interface.workload import Part, Workload
from .encoder_flops import clip_flops, text_flops
from .ledger import dit_pass, total_flops
from .planner import RunPlan
from .vae_units import decode_flops, encode_flops

STAGES = ("text", "clip", "pictures", "decode")  # what a run may have beside its passes


def workload(
    plan: RunPlan,
    tokens: Sequence[Tokens],
    settings: SamplingSettings,
    flops_per_s: float,
    stages: Collection[str] = STAGES,
) -> Workload:
    """Return the parts of a run whose segments have passes of so many tokens; `stages` are what it has beside them.

    Phases are called as the run tells them. Passes that a step cache leaves out are counted, tiles of the VAE as if
    they did not overlap.
    """
    made = [*_before(plan, stages)]
    pass_flops = cache(lambda each: _pass_flops(plan, each))
    segments = plan.job.segments.segments if "pictures" in stages else ()
    for number, each in enumerate(tokens):
        if number < len(segments):
            made += _pictures(plan, settings, number, segments)
        made.append(Part("sampling", "dit", settings.passes * pass_flops(each), number + 1))
    if "decode" in stages:
        made.append(Part("decoding", "vae", sum(_decode(plan, segment) for segment in plan.job.segments.segments)))
    return Workload(tuple(made), flops_per_s)


def _before(plan: RunPlan, stages: Collection[str]) -> Iterator[Part]:
    model, job = plan.model, plan.job
    if "text" in stages:
        flops = sum(text_flops(model.text, tokens) for tokens in job.text_tokens)
        yield Part("encoding the prompt", "text", flops)
    if "clip" in stages and model.dit.clip_dim:
        yield Part("showing the reference to CLIP", "clip", clip_flops(model.clip))
    if "pictures" in stages:
        shared = model.member.surroundings(job.longest, job.references).shared
        for what in dict.fromkeys(name for name, *_ in shared):
            flops = sum(encode_flops(model.vae, *clip) for name, *clip in shared if name == what)
            yield Part(f"encoding {what}", "vae", flops)


def _pictures(plan: RunPlan, settings: SamplingSettings, number: int, segments: Sequence[Segment]) -> Iterator[Part]:
    """Yield what the VAE does before a segment's passes."""
    model, job, segment = plan.model, plan.job, segments[number]
    if segment.history:
        count = 1 if settings.continuation.history == "latents" else segment.history
        yield Part("decoding the frames to continue from", "vae", _decode(plan, segments[number - 1]), number + 1)
        flops = encode_flops(model.vae, count, job.width, job.height)
        yield Part("encoding the frames to continue from", "vae", flops, number + 1)
    size = LatentSize.of_pixels(segment.frames, job.width, job.height, job.space)
    for what, *clip in model.member.surroundings(size, job.references).encoded:
        yield Part(f"encoding {what}", "vae", encode_flops(model.vae, *clip), number + 1)


def _decode(plan: RunPlan, segment: Segment) -> int:
    return decode_flops(plan.model.vae, segment.frames, plan.job.width, plan.job.height)


def _pass_flops(plan: RunPlan, tokens: Tokens) -> int:
    backend = plan.backend
    how = {"on_gpu": backend.on_gpu, "compute": backend.compute, "head_groups": backend.head_groups}
    return total_flops(dit_pass(plan.model.dit, tokens, **how))
