"""Is this machine safe for SCAIL-2, and what is to be expected of it? Looks, compares, and says so in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..interface.geometry import LatentSize
from ..interface.machine import memory_budget
from ..interface.sizes import SCAIL2_DIT
from ..members.scail2 import MEMBER
from ..planning.ledger import dit_pass, total_flops
from ..planning.memory import Backend
from ..planning.planner import Job, ModelSizes, choose
from ..planning.storage import Storage
from ..planning.weights import weights
from ..runtime.probe import Probe, duration, probe
from .checks import Check
from .numerics import Operations, Scale, numeric_checks, scale_for
from .system import Streaming, disk_check, read_speed, system_checks

FRAMES = 81
SIZES = ((832, 480), (896, 512), (1280, 704))
RECIPES = {"distilled (6 passes)": 6, "in full (80 passes)": 80}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, check by check, and the conclusions, a sentence each."""

    probe: Probe
    checks: tuple[Check, ...]
    conclusions: tuple[str, ...]

    @property
    def is_safe(self) -> bool:
        """Whether nothing was found that spoils results."""
        return all(check.verdict != "fault" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return everything as what `json.dumps` takes."""
        return {
            "machine": str(self.probe.machine),
            "flops_per_s": self.probe.rate.flops_per_s,
            "tensor_units": self.probe.tensor_units.active,
            "safe": self.is_safe,
            "checks": [check.as_json() for check in self.checks],
            "conclusions": list(self.conclusions),
        }

    def __str__(self) -> str:
        """Return the report as lines."""
        return "\n".join([str(self.probe.machine), *map(str, self.checks), "", *self.conclusions])


def examine(
    folder: Path | None,
    check_cancelled: Callable[[], None],
    tell: Callable[[Check], None] | None = None,
    operations: Operations | None = None,
    scale: Scale | None = None,
) -> Report:
    """Look at everything, tell each check when it is done, and conclude.

    `folder` holds the model whose disk is measured; None measures none. `operations` and `scale` replace what is
    examined and at which sizes. Takes seconds; raises RequestError for a folder without a model.
    """
    bytes_per_s = read_speed(folder) if folder is not None else None
    found = probe()
    scale = scale or scale_for(found.machine)
    checks: list[Check] = []

    def note(check: Check) -> None:
        checks.append(check)
        if tell is not None:
            tell(check)

    for check in system_checks(found, mx.get_memory_limit()):
        note(check)
    if bytes_per_s is not None:
        note(disk_check(bytes_per_s, _streaming(found)))
    for check in numeric_checks(scale, operations or Operations(), check_cancelled):
        note(check)
    return Report(found, tuple(checks), conclude(found, checks, scale))


def conclude(found: Probe, checks: Sequence[Check], scale: Scale) -> tuple[str, ...]:
    """Say for each size whether it is safe here and how long it takes; pure."""
    lines = [found.sentence]
    for width, height in SIZES:
        tokens = MEMBER.tokens(LatentSize.of_pixels(FRAMES, width, height), 1)
        faults = [check.name for check in checks if check.verdict == "fault" and check.rows <= tokens.sequence]
        if faults:
            lines.append(f"{width}x{height}, {FRAMES} frames: NOT SAFE on this machine ({'; '.join(faults)}).")
            continue
        flops = pass_flops(width, height, on_gpu=found.machine.on_gpu)
        times = ", ".join(f"{duration(found.forecast(flops, n).seconds)} {name}" for name, n in RECIPES.items())
        seen = max(scale.rows) >= tokens.video or not scale.on_gpu
        safe = "numbers safe" if seen else "numbers not examined, for which this machine's memory is too small"
        lines.append(f"{width}x{height}, {FRAMES} frames: {safe}. At least {times}. {_fit(found, width, height)}")
    if not scale.on_gpu:
        lines.append("MLX computes on the CPU here: right, but too slow for more than tests. Row counts were reduced.")
    return tuple(lines)


def _fit(found: Probe, width: int, height: int) -> str:
    """Say how a run with the published bf16 weights fits into the machine's memory."""
    machine = found.machine
    if machine.memory_bytes is None:
        return "Whether it fits into memory is not known."
    budget = memory_budget(machine.memory_bytes, machine.working_set_bytes or 0)
    backend = Backend(machine.on_gpu, machine.block_dtype)
    overlap = MEMBER.defaults.segment_overlap
    job = Job(width=width, height=height, frames=FRAMES, segment_length=FRAMES, segment_overlap=overlap)
    plan = choose(ModelSizes(), job, budget, backend)
    needed, allowed = f"{plan.needed_bytes / 1e9:.1f} GB", f"{budget / 1e9:.1f} GB"
    if plan.needed_bytes > budget:
        return f"It does not fit: even streamed it needs {needed} of memory, {allowed} may be used."
    how = "with streamed blocks" if plan.residency == "streamed" else "with all weights in memory"
    tiles = f", the VAE in tiles of {plan.tile}" if plan.tile else ""
    groups = plan.backend.head_groups
    attention = f", attention in {groups} groups of heads" if groups > 1 else ""
    return f"It fits in bf16 {how}{attention}{tiles}: {needed} of {allowed}."


def pass_flops(width: int, height: int, *, on_gpu: bool, frames: int = FRAMES) -> int:
    """Return the FLOPs of one pass of SCAIL-2 at a size in pixels, with one reference."""
    return total_flops(
        dit_pass(SCAIL2_DIT, MEMBER.tokens(LatentSize.of_pixels(frames, width, height), 1), on_gpu=on_gpu)
    )


def _streaming(found: Probe) -> Streaming:
    flops = pass_flops(*SIZES[0], on_gpu=found.machine.on_gpu) / SCAIL2_DIT.num_layers
    return Streaming(weights(SCAIL2_DIT).block_bytes(Storage()), flops / found.rate.flops_per_s)
