"""The rows of the bench, as lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.machine import this_machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One kind of pass at one size.

    `ratio`: its time over that of `against`, the median of the rounds; `bar`: what that may be. `flops_per_s`: the
    model's FLOPs over the time of a pass; `gemm_flops_per_s`: those of the blocks' products, run alone at their shapes.
    `peak_bytes`: the most memory during a pass beyond what stays between passes.
    """

    name: str
    tokens: int
    seconds: float
    flops_per_s: float
    gemm_flops_per_s: float
    ratio: float
    against: str
    bar: float
    peak_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the line of a table."""
        missed = "" if self.ratio <= self.bar else "  MISSED"
        return (
            f"{self.name:<44}{self.seconds:9.3f}{self.flops_per_s / 1e12:9.3f}{self.gemm_flops_per_s / 1e12:9.3f}"
            f"{self.flops_per_s / self.gemm_flops_per_s:8.2f}{self.ratio:8.3f} x {self.against:<11}{self.bar:6.2f}"
            f"{self.peak_bytes / 1e9:9.3f}{missed}"
        )


def heading(rounds: int, *, processor_time: bool) -> str:
    """Return what stands above the rows."""
    what = "processor time" if processor_time else "time"
    return (
        f"{this_machine()}\n"
        f"random weights; {what}, medians of {rounds} interleaved rounds; "
        "peak: beyond what stays in memory between passes\n"
        f"{'':<44}{'seconds':>9}{'TFLOP/s':>9}{'GEMM':>9}{'of GEMM':>8}{'time':>8}{'':<14}{'bar':>6}{'peak GB':>9}"
    )
