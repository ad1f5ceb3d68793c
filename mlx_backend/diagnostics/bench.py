"""How close passes come to what the machine can do: dense against their primitives, packed against dense, streamed
against resident. Every ratio is of one process, in interleaved rounds, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..interface.geometry import LatentSize
from ..interface.sizes import SCAIL2_CLIP, Scail2Config
from ..interface.tokens import Tokens
from ..members.scail2 import MEMBER
from ..models.linear import Linear
from ..models.scail2 import Reference, Scail2Model, Streams
from ..planning.ledger import Op, dit_pass, total_flops
from ..runtime.machine import this_machine
from ..runtime.memory import bounded_cache
from ..runtime.probe import Clock
from ..weights.checkpoints.components import fitting, load_component
from ..weights.checkpoints.detect import dit_settings
from ..weights.checkpoints.snapshot import Snapshot
from .primitives import Primitive, drawn, primitives
from .report import Row

GROUP_SIZE = 64
TIMESTEP = 500.0
TEXT_TOKENS = 40
# The bars: a pass against its primitives, packed against dense, streamed against resident.
PRIMITIVES_BAR, PACKED_BAR, STREAMED_BAR = 1.10, 1.25, 1.10


@dataclass(frozen=True, slots=True)
class Case:
    """A model of two layers and a latent of `frames` x 32 x 48: 384 tokens of the reference, 480 a frame."""

    config: Scail2Config
    frames: int

    @property
    def size(self) -> LatentSize:
        """Sizes of the latent."""
        return LatentSize(self.frames, 32, 48)

    @property
    def tokens(self) -> Tokens:
        """The tokens of a pass."""
        return MEMBER.tokens(self.size, 1)

    @property
    def name(self) -> str:
        """The size in words."""
        return f"dim {self.config.dim}, {self.tokens.sequence:,} tokens"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and in how many rounds."""

    cases: tuple[Case, ...]
    rounds: int

    def only(self, dim: int | None, rounds: int | None, tokens: int | None = None) -> Plan:
        """Return the plan with the cases of one width or length alone, or another number of rounds, where given."""
        kept = [case for case in self.cases if dim in (None, case.config.dim)]
        kept = [case for case in kept if tokens in (None, case.tokens.sequence)]
        return Plan(tuple(kept), rounds or self.rounds)


def _config(dim: int, ffn_dim: int) -> Scail2Config:
    return Scail2Config(
        dim=dim,
        ffn_dim=ffn_dim,
        freq_dim=256,
        num_heads=dim // 128,
        num_layers=2,
        in_dim=20,
        pose_dim=20,
        mask_dim=28,
        out_dim=16,
        text_dim=512,
        clip_dim=1280,
    )


NARROW, WIDE = _config(1536, 8960), _config(5120, 13824)  # Wan's 1.3B and 14B
QUICK = Plan((Case(NARROW, 2),), 3)
CPU = Plan((Case(NARROW, 4),), 5)
GPU = Plan((Case(NARROW, 16), Case(WIDE, 16)), 3)
FULL = Plan((Case(NARROW, 4), Case(NARROW, 16), Case(WIDE, 4), Case(WIDE, 8)), 3)


def default_plan() -> Plan:
    """Return what the default device measures in a few minutes."""
    return GPU if mx.default_device() == mx.Device(mx.gpu) else CPU


def bench(
    plan: Plan,
    check_cancelled: Callable[[], None],
    tell: Callable[[Row], None] | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[Row, ...]:
    """Measure every case; each row is also told as soon as it is there. `check_cancelled` is called all the time.

    With `time.process_time` as the `clock` it counts this process's processor time, which other programs disturb less.
    """
    rows = []
    with bounded_cache(), tempfile.TemporaryDirectory(prefix="scail2-bench-") as folder:
        for case in plan.cases:
            for row in _measure(case, plan.rounds, Path(folder), clock, check_cancelled):
                rows.append(row)
                if tell is not None:
                    tell(row)
            mx.clear_cache()
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Pass:
    """A model ready for one pass; its row compares it with `against`, whose times `bar` times it may take."""

    name: str
    against: str
    bar: float
    run: Callable[[], object]


def _measure(case: Case, rounds: int, folder: Path, clock: Clock, check_cancelled: Callable[[], None]) -> Iterator[Row]:
    machine = this_machine()
    dtype = machine.block_dtype
    ops = dit_pass(case.config, case.tokens, on_gpu=machine.on_gpu, compute=dtype)
    passes = list(_passes(case, dtype, folder, check_cancelled))
    peaks = {made.name: _peak(made.run) for made in passes}  # the first run of each, which also warms up
    alone = primitives(ops, case.config)
    _time_all(alone, clock)
    times: dict[str, list[float]] = {made.name: [] for made in passes} | {"primitives": []}
    gemm = []
    for _ in range(rounds):
        for made in passes:
            check_cancelled()
            times[made.name].append(_seconds(made.run, clock))
            if made.against == "primitives":  # right after the pass that they are compared with
                whole, rate = _time_all(alone, clock)
                times["primitives"].append(whole)
                gemm.append(rate)
    for made in passes:
        yield _row(case, made, ops, times, statistics.median(gemm), peaks[made.name])


def _row(
    case: Case, made: Pass, ops: list[Op], times: dict[str, list[float]], gemm_rate: float, peak_bytes: int
) -> Row:
    own, other = times[made.name], times[made.against]
    seconds = statistics.median(own)
    return Row(
        name=f"{case.name}, {made.name}",
        tokens=case.tokens.sequence,
        seconds=seconds,
        flops_per_s=total_flops(ops) / seconds,
        gemm_flops_per_s=gemm_rate,
        ratio=statistics.median(a / b for a, b in zip(own, other, strict=True)),
        against=made.against,
        bar=made.bar,
        peak_bytes=peak_bytes,
    )


def _passes(case: Case, dtype: str, folder: Path, check_cancelled: Callable[[], None]) -> Iterator[Pass]:
    """Yield dense, streamed and packed models, read from files as a run reads them."""
    stem = f"{case.config.dim}"
    dense = snapshot_of(folder / f"{stem}.safetensors", case.config)
    if not dense.path("dit").exists():
        write_model(dense.path("dit"), case.config, getattr(mx, dtype))
    resident = load_component(fitting(dense, "dit", "auto"), check_cancelled)
    yield Pass(dtype, "primitives", PRIMITIVES_BAR, forward(case.size, resident))
    streamed = load_component(fitting(dense, "dit", "auto"), check_cancelled, "streamed")
    yield Pass(f"{dtype}, streamed", dtype, STREAMED_BAR, forward(case.size, streamed))
    for bits in (4, 8):
        packed = snapshot_of(folder / f"{stem}-q{bits}.safetensors", case.config)
        if not packed.path("dit").exists():
            pack_model(packed.path("dit"), resident, bits)
        model = load_component(fitting(packed, "dit", "auto"), check_cancelled)
        yield Pass(f"{bits}-bit", dtype, PACKED_BAR, forward(case.size, model))


def forward(size: LatentSize, model: Scail2Model) -> Callable[[], mx.array]:
    """Return one pass over a latent of this size, with everything that no step changes prepared."""
    shape = size.shape
    latent = drawn(shape, mx.float32)
    half = (*shape[:2], shape[2] // 2, shape[3] // 2)
    streams = Streams(
        references=(Reference(latent[:, :1], None),),
        driving=drawn(half, mx.float32),
        driving_mask=None,
        replacement=False,
    )
    text, clip = (TEXT_TOKENS, model.config.text_dim), (SCAIL2_CLIP.tokens, model.config.clip_dim)
    context = model.embed_context(drawn(text, mx.float32), drawn(clip, mx.float32))
    conditioning = model.condition(context, shape[1:], streams)

    def run() -> mx.array:
        made = model(latent, TIMESTEP, conditioning, lambda: None)
        mx.eval(made)
        return made

    return run


def _peak(work: Callable[[], object]) -> int:
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    work()
    return mx.get_peak_memory() - before


def _time_all(alone: list[Primitive], clock: Clock) -> tuple[float, float]:
    """Return the seconds of a pass's primitives, and the FLOPs per second of the blocks' products among them."""
    times = [_seconds(primitive.work, clock) for primitive in alone]
    products = [(p.count * p.flops, p.count * t) for p, t in zip(alone, times, strict=True) if p.is_gemm]
    rate = sum(flops for flops, _ in products) / sum(seconds for _, seconds in products)
    return sum(p.count * t for p, t in zip(alone, times, strict=True)), rate


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    start = clock()
    work()
    return clock() - start


def snapshot_of(path: Path, config: Scail2Config) -> Snapshot:
    """Return a snapshot that is this DiT alone."""
    return Snapshot({"dit": path}, path, dit_settings(config))


def write_model(path: Path, config: Scail2Config, dtype: mx.Dtype) -> None:
    """Write a random model whose products about keep the size of their input."""
    tensors = {}
    for name, zeros in tree_flatten(Scail2Model(config).parameters()):
        is_matrix = name.endswith(".weight") and len(zeros.shape) > 1
        inputs = zeros.size // len(zeros)
        gain = name.endswith(".weight") and not is_matrix
        values = drawn(zeros.shape, dtype, inputs**-0.5 if is_matrix else 0.1)
        tensors[name] = values + 1 if gain else values
        mx.eval(tensors[name])
    mx.save_safetensors(str(path), tensors)


def pack_model(path: Path, model: Scail2Model, bits: int) -> None:
    """Write a dense model with the Linears of its blocks packed."""
    linears = {name for name, module in model.named_modules() if isinstance(module, Linear) and "blocks." in name}
    tensors = {}
    for name, array in tree_flatten(model.parameters()):
        stem = name.removesuffix(".weight")
        if stem == name or stem not in linears:
            tensors[name] = array
            continue
        parts = mx.quantize(array, group_size=GROUP_SIZE, bits=bits)
        mx.eval(parts)
        tensors |= {f"{stem}.{part}": made for part, made in zip(("weight", "scales", "biases"), parts, strict=True)}
    mx.save_safetensors(str(path), tensors)
