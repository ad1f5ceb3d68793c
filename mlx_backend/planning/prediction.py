"""A prediction in numbers and in words: memory on machines of several sizes, operations, and time from known rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..interface.errors import RequestError
from ..interface.geometry import LatentSize
from ..interface.machine import CHIPS, DISK_BYTES_PER_S, GIB, Chip, memory_budget, usual_working_set
from .encoder_flops import clip_flops, text_flops
from .ledger import Op, dit_pass, sums, total_flops
from .planner import METAL, PHASES, Job, ModelSizes, RunPlan, check_fits, choose
from .vae_units import decode_flops, encode_flops
from .weights import weights

RECIPES = {"6 passes": 6, "80 passes": 80}  # distilled, 6 steps; 40 steps with guidance


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
            "result_bytes": plan.result_bytes,
            "head_groups": plan.backend.head_groups,
        }


def machine_row(model: ModelSizes, job: Job, gigabytes: float, residency: str) -> Row:
    """Return the plan for a Mac with so much unified memory."""
    memory = int(gigabytes * GIB)
    budget = memory_budget(memory, usual_working_set(memory))
    plan = choose(model, job, budget, METAL, residency=residency)
    try:
        check_fits(plan, budget)
    except RequestError as refusal:
        return Row(memory, budget, plan, str(refusal))
    return Row(memory, budget, plan, "")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run computes. `work`: by frames of a segment, how many such segments there are and one pass over one."""

    model: ModelSizes
    job: Job
    work: Mapping[int, tuple[int, list[Op]]]

    @classmethod
    def of(cls, model: ModelSizes, job: Job) -> Prediction:
        """Count the operations of a pass over each kind of segment."""
        made = {}
        for frames, count in Counter(segment.frames for segment in job.segments.segments).items():
            size = LatentSize.of_pixels(frames, job.width, job.height, job.space)
            tokens = model.tokens(size, job.references)
            ops = dit_pass(model.dit, tokens, on_gpu=True, compute=METAL.compute, storage=model.dit_storage)
            made[frames] = count, ops
        return cls(model, job, made)

    def as_json(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return everything as numbers; the top level is that of the first machine."""
        return rows[0].as_json() | {
            "tokens": self._tokens,
            "segments": len(self.job.segments.segments),
            "flops": self._flops(),
            "estimates": [self._estimate(chip) for chip in CHIPS],
            "machines": [row.as_json() for row in rows],
        }

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Return everything in words, line by line."""
        return [*self._heading(), *_table(rows), *self._times()]

    @property
    def _tokens(self) -> int:
        return self.model.tokens(self.job.longest, self.job.references).sequence

    @property
    def _dit_bytes(self) -> int:
        return weights(self.model.dit).bytes(self.model.dit_storage)

    def _flops(self) -> dict[str, Any]:
        model, job = self.model, self.job
        counts, size = {frames: count for frames, (count, _) in self.work.items()}, (job.width, job.height)
        _, first = self.work[job.segments.segments[0].frames]
        shown = list(model.member.surroundings(job.longest, job.references).shared)
        for frames, count in counts.items():
            latent = LatentSize.of_pixels(frames, *size, job.space)
            shown += count * model.member.surroundings(latent, job.references).encoded
        return {
            "pass": total_flops(first),
            "pass_by_part": sums(first, lambda op: op.part),
            "all_segments_once": sum(count * total_flops(ops) for count, ops in self.work.values()),
            "text": sum(text_flops(model.text, tokens) for tokens in job.text_tokens),
            "clip": clip_flops(model.clip) if model.dit.clip_dim else 0,
            "encode": sum(encode_flops(model.vae, *clip) for _, *clip in shown),
            "decode": sum(count * decode_flops(model.vae, n, *size) for n, count in counts.items()),
        }

    def _estimate(self, chip: Chip) -> dict[str, Any]:
        """Return seconds of the DiT's passes: FLOPs over measured rates, and no faster than the blocks can be read."""
        made = weights(self.model.dit)
        reading = made.blocks * made.block_bytes(self.model.dit_storage) / DISK_BYTES_PER_S
        once = []
        for count, ops in self.work.values():
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

    def _heading(self) -> list[str]:
        flops, storage, job = self._flops(), self.model.dit_storage, self.job
        count = len(job.segments.segments)
        packed = f"packed in {storage.bits} bits" if storage.bits else storage.dtype
        return [
            f"{self.model.member.title}, DiT of {self._dit_bytes / 1e9:.1f} GB ({packed}), {job.width} x {job.height} "
            f"pixels, {job.frames} frame{'s' * (job.frames != 1)} in {count} segment{'s' * (count != 1)}.",
            f"One pass: {self._tokens:,} tokens, {flops['pass'] / 1e15:.2f} PFLOP. "
            f"Encoding {flops['encode'] / 1e12:.0f}, decoding {flops['decode'] / 1e12:.0f} TFLOP in all.",
        ]

    def _times(self) -> list[str]:
        lines = [
            "",
            "Estimated time of the passes, from rates that others measured (real runs take longer; no VAE, no "
            "encoders):",
            f"  {'chip':<29}{'a pass':>8}" + "".join(f"{name:>11}" for name in RECIPES) + "   rate",
        ]
        for chip in CHIPS:
            found = self._estimate(chip)
            clips = "".join(f"{_duration(seconds):>11}" for seconds in found["seconds"].values())
            lines.append(f"  {chip.name:<29}{_duration(found['seconds_per_pass']):>8}{clips}   {chip.source}")
        lines.append(
            f"  Streamed blocks are read in about {_duration(self._dit_bytes / DISK_BYTES_PER_S)} a pass (a disk of "
            f"{DISK_BYTES_PER_S / 1e9:g} GB/s) while the pass computes: they cost time only where that is more."
        )
        segments = len(self.job.segments.segments)
        if segments > 1:
            lines.append(f"  The {' and '.join(RECIPES)} are those of each of {segments} segments, the times of all.")
        return lines


def _table(rows: Sequence[Row]) -> list[str]:
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


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
