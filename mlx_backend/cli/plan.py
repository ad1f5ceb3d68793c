"""`plan`: what a run will hold in memory on machines of several sizes, and about how long it will take."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..interface.encoder_flops import clip_flops, text_flops
from ..interface.errors import RequestError
from ..interface.geometry import LatentSize, check_size
from ..interface.ledger import Op, Tokens, dit_pass, sums, total_flops
from ..interface.machine import CHIPS, DISK_BYTES_PER_S, GIB, Chip, memory_budget, usual_working_set
from ..interface.planner import METAL, PHASES, Job, ModelSizes, RunPlan, check_fits, choose
from ..interface.storage import Storage, dit_bytes, dit_rest_bytes
from ..interface.vae_units import decode_flops, encode_flops
from ..interface.variants import RESIDENCIES, SCAIL2

MACHINES = (16, 24, 32, 64, 128)  # GB of unified memory
BITS = (4, 5, 6, 8)
RECIPES = {"6 passes": 6, "80 passes": 80}  # distilled, 6 steps; 40 steps with guidance
Work = dict[int, tuple[int, list[Op]]]  # frames of a segment: how many such segments there are, one pass over one


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "plan",
        help="predict memory and time of a run, without running or loading anything",
        description="Predicts what MLX will hold in every phase on Macs of 16 to 128 GB, and how the run should be "
        "done there. Works without MLX. Times are estimates from rates that others measured.",
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="a snapshot to take the sizes from (default: SCAIL-2 14B in bf16)")
    add("--width", type=int, default=SCAIL2.width, help="pixels, a multiple of 32 (default %(default)s)")
    add("--height", type=int, default=SCAIL2.height, help="pixels, a multiple of 32 (default %(default)s)")
    add("--frames", type=int, default=SCAIL2.segment_length, help="of the driving video (default %(default)s)")
    add("--segment-length", type=int, default=SCAIL2.segment_length, metavar="N", help="(default %(default)s)")
    add("--segment-overlap", type=int, default=SCAIL2.segment_overlap, metavar="N", help="(default %(default)s)")
    add("--references", type=int, default=1, metavar="N", help="reference pictures (default %(default)s)")
    add("--bits", type=int, choices=BITS, help="weights packed in so many bits (default: as the model has them)")
    add("--residency", default=RESIDENCIES[0], choices=RESIDENCIES, help="of the DiT's blocks (default %(default)s)")
    add("--memory", type=float, metavar="GB", help="plan for one machine with so much unified memory")
    add("--json", action="store_true", help="print one object for programs; its top level is the smallest machine's")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Row:
    """One machine: its memory, what a run may take of it, the plan, and why it does not fit ("" if it does)."""

    memory: int
    budget: int
    plan: RunPlan
    refusal: str

    def as_json(self) -> dict[str, Any]:
        """Return it as numbers."""
        plan = self.plan
        return {
            "memory_bytes": self.memory,
            "budget_bytes": self.budget,
            "fits": not self.refusal,
            "refusal": self.refusal,
            "residency": plan.residency,
            "tile": plan.tile,
            "phases": {name: moment.bytes for name, moment in plan.phases.items()},
            "peak_bytes": plan.peak_bytes,
            "needed_bytes": plan.needed_bytes,
            "terms": {name: {what: size for what, size in m.terms if size} for name, m in plan.phases.items()},
            "beside_bytes": {what: size for what, size in plan.beside if size},
        }


def run(chosen: argparse.Namespace) -> None:
    """Print the table, or the object. Raises RequestError for settings that no run can have."""
    model, job = _model(chosen), _job(chosen)
    rows = [_row(model, job, gigabytes, chosen.residency) for gigabytes in _machines(chosen.memory)]
    work = _work(model, job)
    if chosen.json:
        made = rows[0].as_json() | {
            "tokens": job.tokens.sequence,
            "segments": len(job.segments.segments),
            "flops": _flops(model, job, work),
            "estimates": [_estimate(chip, model, work) for chip in CHIPS],
            "machines": [row.as_json() for row in rows],
        }
        sys.stdout.write(json.dumps(made, indent=1) + "\n")
        return
    sys.stdout.write("\n".join([*_heading(model, job, work), *_table(rows), *_times(model, job, work)]) + "\n")


def _model(chosen: argparse.Namespace) -> ModelSizes:
    model = ModelSizes() if chosen.model is None else _read(chosen.model)
    if chosen.bits is None:
        return model
    return replace(model, dit_storage=replace(model.dit_storage, bits=chosen.bits, group_size=Storage().group_size))


def _read(folder: Path) -> ModelSizes:
    """Return the sizes of a snapshot, from its headers. Raises WeightsError, and DependencyError without MLX."""
    from ..runtime.device import require_mlx
    from ..weights.checkpoints.snapshot import Snapshot

    snapshot = Snapshot.open(folder)
    require_mlx()
    from ..pipelines.planning import model_sizes
    from ..weights.checkpoints.components import fitting, part_sizes

    names = ("dit", "vae", "t5_encoder", "clip")
    dit, vae, text, clip = (part_sizes(fitting(snapshot, name, "auto")) for name in names)
    return model_sizes(dit=dit, vae=vae, text=text, clip=clip)


def _job(chosen: argparse.Namespace) -> Job:
    check_size(chosen.width, chosen.height)
    if chosen.references < 1:
        raise RequestError(f"There are {chosen.references} reference pictures, but at least 1 is needed.")
    job = Job(
        width=chosen.width,
        height=chosen.height,
        frames=chosen.frames,
        segment_length=chosen.segment_length,
        segment_overlap=chosen.segment_overlap,
        references=chosen.references,
    )
    if not job.segments.segments:
        raise RequestError("There is nothing to plan: the driving video has no frames.")
    return job


def _machines(memory: float | None) -> tuple[float, ...]:
    if memory is None:
        return MACHINES
    if not 1 <= memory <= 1 << 20:
        raise RequestError(f"--memory is {memory:g} GB, but a machine with 1 to {1 << 20} GB can be planned for.")
    return (memory,)


def _row(model: ModelSizes, job: Job, gigabytes: float, residency: str) -> Row:
    memory = int(gigabytes * GIB)
    budget = memory_budget(memory, usual_working_set(memory))
    plan = choose(model, job, budget, METAL, residency=residency)
    try:
        check_fits(plan, budget)
    except RequestError as refusal:
        return Row(memory, budget, plan, str(refusal))
    return Row(memory, budget, plan, "")


def _work(model: ModelSizes, job: Job) -> Work:
    made: Work = {}
    for frames, count in Counter(segment.frames for segment in job.segments.segments).items():
        tokens = Tokens.of(LatentSize.of_pixels(frames, job.width, job.height), job.references)
        how = {"on_gpu": True, "compute": METAL.compute, "storage": model.dit_storage}
        made[frames] = (count, dit_pass(model.dit, tokens, **how))
    return made


def _flops(model: ModelSizes, job: Job, work: Work) -> dict[str, Any]:
    counts, size = {frames: count for frames, (count, _) in work.items()}, (job.width, job.height)
    _, first = work[job.segments.segments[0].frames]
    return {
        "pass": total_flops(first),
        "pass_by_part": sums(first, lambda op: op.part),
        "all_segments_once": sum(count * total_flops(ops) for count, ops in work.values()),
        "text": sum(text_flops(model.text, tokens) for tokens in job.text_tokens),
        "clip": clip_flops(model.clip),
        "encode": job.references * encode_flops(model.vae, 1, *size)
        + sum(count * encode_flops(model.vae, n, job.width // 2, job.height // 2) for n, count in counts.items()),
        "decode": sum(count * decode_flops(model.vae, n, *size) for n, count in counts.items()),
    }


def _estimate(chip: Chip, model: ModelSizes, work: Work) -> dict[str, Any]:
    """Return seconds of the DiT's passes: FLOPs over measured rates, and no faster than the blocks can be read."""
    blocks = dit_bytes(model.dit, model.dit_storage) - dit_rest_bytes(model.dit, model.dit_storage)
    reading = blocks / DISK_BYTES_PER_S
    once = []
    for count, ops in work.values():
        attention = sum(op.flops for op in ops if op.kind == "attention")
        once.append((count, (total_flops(ops) - attention) / chip.products + attention / chip.attention))
    a_pass, all_once = once[0][1], sum(count * seconds for count, seconds in once)
    return {
        "chip": chip.name,
        "source": chip.source,
        "seconds_per_pass": a_pass,
        "seconds_per_pass_streamed": max(a_pass, reading),
        "seconds": {name: passes * all_once for name, passes in RECIPES.items()},
    }


def _heading(model: ModelSizes, job: Job, work: Work) -> list[str]:
    flops, storage = _flops(model, job, work), model.dit_storage
    count = len(job.segments.segments)
    packed = f"packed in {storage.bits} bits" if storage.bits else storage.dtype
    return [
        f"SCAIL-2, DiT of {dit_bytes(model.dit, storage) / 1e9:.1f} GB ({packed}), {job.width} x {job.height} pixels, "
        f"{job.frames} frame{'s' * (job.frames != 1)} in {count} segment{'s' * (count != 1)}.",
        f"One pass: {job.tokens.sequence:,} tokens, {flops['pass'] / 1e15:.2f} PFLOP. "
        f"Encoding {flops['encode'] / 1e12:.0f}, decoding {flops['decode'] / 1e12:.0f} TFLOP in all.",
    ]


def _table(rows: list[Row]) -> list[str]:
    head = f"{'machine':>8} {'allowed':>8}  {'DiT':<9} {'VAE tiles':<10}"
    head += "".join(f"{name:>9}" for name in PHASES) + f"{'peak':>9}{'process':>9}"
    lines = ["", "Predicted memory in GB (1e9 bytes); none of it has been measured on a Mac.", head]
    for row in rows:
        plan = row.plan
        cells = [*(plan.phases[name].bytes for name in PHASES), plan.peak_bytes, plan.needed_bytes]
        tiles = str(plan.tile) if plan.tile else "none"
        line = f"{row.memory / GIB:>5g} GB {row.budget / 1e9:>8.1f}  {plan.residency:<9} {tiles:<10}"
        lines.append(
            line + "".join(f"{size / 1e9:>9.2f}" for size in cells) + ("  does not fit" if row.refusal else "")
        )
    lines += [
        "allowed: the smaller of 75 % of the memory and 0.9 x what macOS recommends. peak: the most that MLX holds.",
        "process: with pictures, program and MLX's buffer cache; this is compared with 'allowed'.",
    ]
    return [*lines, *(f"{row.memory / GIB:g} GB: {row.refusal}" for row in rows if row.refusal)]


def _times(model: ModelSizes, job: Job, work: Work) -> list[str]:
    lines = [
        "",
        "Estimated time of the passes, from rates that others measured (real runs take longer; no VAE, no encoders):",
        f"  {'chip':<29}{'a pass':>8}" + "".join(f"{name:>11}" for name in RECIPES) + "   rate",
    ]
    for chip in CHIPS:
        found = _estimate(chip, model, work)
        clips = "".join(f"{_duration(seconds):>11}" for seconds in found["seconds"].values())
        lines.append(f"  {chip.name:<29}{_duration(found['seconds_per_pass']):>8}{clips}   {chip.source}")
    blocks = dit_bytes(model.dit, model.dit_storage) / DISK_BYTES_PER_S
    lines.append(
        f"  Streamed blocks are read in about {_duration(blocks)} a pass (a disk of {DISK_BYTES_PER_S / 1e9:g} GB/s) "
        "while the pass computes: they cost time only where that is more."
    )
    segments = len(job.segments.segments)
    if segments > 1:
        lines.append(f"  The {' and '.join(RECIPES)} are those of each of {segments} segments, the times of all.")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
