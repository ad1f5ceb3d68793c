"""How fast this machine multiplies, found in under a second, and what a run will take at that rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from .machine import Machine, this_machine

GPU_SIZE, CPU_SIZE = 4096, 768  # of the cube that is multiplied
BUDGET = 0.4  # seconds of measuring, beside one product before it
# M5 Max, bf16, 4096: 50 to 57 TFLOP/s with the tensor units, 15 without (mlx#3821, mlx#3838). Other M5 chips have
# fewer cores of the same kind, at most 20 and 10, so their plain rates are computed from that one, not measured.
TENSOR_GENERATION = 5
TENSOR_MACOS = (26, 2)
TENSOR_WHEEL = "macosx_26"
PLAIN_FLOPS = {"Apple M5 Max": 15e12, "Apple M5 Pro": 7.5e12, "Apple M5": 3.75e12}
TENSOR_FACTOR = 1.6  # times the plain rate: between the two

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rate:
    """A measured speed: products of two `size` x `size` matrices of `dtype`."""

    flops_per_s: float
    dtype: str
    size: int

    @property
    def tflops(self) -> str:
        """The rate to print."""
        return f"{self.flops_per_s / 1e12:.3g} TFLOP/s"


@dataclass(frozen=True, slots=True)
class TensorUnits:
    """Whether the matrix units of an M5 are at work. None: the chip has none, or nobody knows its plain rate."""

    active: bool | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take, in seconds: its FLOPs over the measured rate. Real runs take longer."""

    seconds_per_pass: float
    passes: int
    beside: float = 0.0  # of the encoders and the VAE

    @property
    def seconds(self) -> float:
        """All passes of the run."""
        return self.passes * self.seconds_per_pass

    def __str__(self) -> str:
        """Describe it in a sentence."""
        passes = f"{duration(self.seconds)} for {self.passes} pass{'es' * (self.passes != 1)}"
        a_pass = f"Expect {duration(self.seconds_per_pass)} for a pass"
        if not self.beside:
            return f"{a_pass} and {passes}, at this rate."
        whole = duration(self.seconds + self.beside)
        return f"{a_pass}, {passes} and {whole} with the encoders and the VAE, at this rate."


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found about a machine before a run."""

    machine: Machine
    rate: Rate
    tensor_units: TensorUnits

    @property
    def sentence(self) -> str:
        """What a user should know, for the log."""
        parts = [f"{self.machine.chip}: {self.rate.tflops} ({self.rate.dtype} products of {self.rate.size})"]
        if self.machine.memory_bytes is not None:
            parts.append(f"{self.machine.memory_bytes / 1e9:.0f} GB of memory")
        if self.machine.working_set_bytes is not None:
            parts.append(f"of which Metal recommends {self.machine.working_set_bytes / 1e9:.0f} GB")
        return f"{', '.join(parts)}. {self.tensor_units.sentence}".strip()

    def forecast(self, pass_flops: float, passes: int, beside: float = 0.0) -> Forecast:
        """Return what `passes` passes of `pass_flops` FLOPs each will take, and so many FLOPs `beside` them."""
        return Forecast(pass_flops / self.rate.flops_per_s, passes, beside / self.rate.flops_per_s)


def probe() -> Probe:
    """Measure MLX's default device. Takes less than a second, and under 0.2 GB."""
    machine = this_machine()
    rate = measure_rate(machine.block_dtype, GPU_SIZE if machine.on_gpu else CPU_SIZE)
    return Probe(machine, rate, tensor_units(machine, rate))


def measure_rate(dtype: str, size: int, clock: Clock = time.perf_counter) -> Rate:
    """Return the best rate of several products of `dtype`, the first of which is not counted."""
    a = mx.full((size, size), 0.5, dtype=getattr(mx, dtype))
    mx.eval(a, a @ a)
    start = clock()
    best = float("inf")
    while best == float("inf") or clock() - start < BUDGET:
        before = clock()
        mx.eval(a @ a)
        best = min(best, clock() - before)
    return Rate(2 * size**3 / best, dtype, size)


def tensor_units(machine: Machine, rate: Rate) -> TensorUnits:
    """Say whether the tensor units of an M5 or later are in use, and if not, how to get them."""
    if not machine.is_metal or (machine.generation or 0) < TENSOR_GENERATION:
        return TensorUnits(None, "")
    plain = PLAIN_FLOPS.get(machine.chip)
    if plain is None:
        return TensorUnits(None, f"Whether the tensor units of {machine.chip} are in use is not known here.")
    if rate.flops_per_s > TENSOR_FACTOR * plain:
        return TensorUnits(active=True, sentence="The GPU's tensor units are in use.")
    wants = []
    if machine.release < TENSOR_MACOS:
        wants.append(f"update macOS to 26.2 or later (this is {'.'.join(map(str, machine.release))})")
    if not any(TENSOR_WHEEL in tag for tag in machine.wheel_tags):
        wants.append(
            "install MLX from PyPI under macOS 26 (pip install -U --force-reinstall mlx mlx-metal); "
            "Homebrew's and other builds lack them"
        )
    do = " and ".join(wants) or "close other programs that use the GPU and look again: system and wheel are right"
    return TensorUnits(
        active=False, sentence=f"The GPU's tensor units are not in use, with which it is about 3 times faster: {do}."
    )


def duration(seconds: float) -> str:
    """Return a time to read: 0.42 s, 35 s, 12 min, 3.4 h, 3 days."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
