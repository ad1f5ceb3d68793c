"""Is the machine set up for long runs: MLX, macOS, TF32, memory, and a disk that blocks can be streamed from?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..interface.errors import RequestError
from ..runtime.device import MINIMUM_MLX, TF32
from ..runtime.machine import Machine
from ..runtime.probe import TENSOR_GENERATION, TENSOR_MACOS, Probe, duration
from .checks import Check

WIRED_MACOS = (15,)  # before it MLX cannot wire memory
SMALLEST_MEMORY = 16e9  # what the planner makes runs for
READ_BYTES, READS, READ_SECONDS = 16 << 20, 24, 2.0
F_NOCACHE = 48  # <sys/fcntl.h> of macOS


@dataclass(frozen=True, slots=True)
class Streaming:
    """One block of the model: its bytes on disk, and the seconds that it computes."""

    block_bytes: int
    block_seconds: float


def system_checks(probe: Probe, memory_limit: int) -> list[Check]:
    """Judge the facts of a machine; pure. `memory_limit` is MLX's, in bytes."""
    machine = probe.machine
    made = [_mlx(machine), _tf32(machine), _memory(machine, memory_limit)]
    if machine.is_metal:
        made.insert(1, _macos(machine))
    if probe.tensor_units.active is not None:
        active = probe.tensor_units.active
        found = f"{'in use' if active else 'not in use'}, {probe.rate.tflops}"
        made.append(Check("tensor units", found, "ok" if active else "note", probe.tensor_units.sentence))
    return made


def disk_check(bytes_per_s: float, streaming: Streaming) -> Check:
    """Judge whether a disk is faster than the blocks that are read from it; pure."""
    read = streaming.block_bytes / bytes_per_s
    found = (
        f"{bytes_per_s / 1e9:.2g} GB/s: a block of {streaming.block_bytes / 1e9:.2f} GB is read in {duration(read)} "
        f"and computes for {duration(streaming.block_seconds)} at 832x480, 81 frames"
    )
    reason = "the next block is read while one computes"
    error, bar = read / streaming.block_seconds, 1.0
    if error <= bar:
        return Check("disk", found, "ok", "Blocks can be streamed without waiting for them.", error, bar, reason)
    sentence = (
        f"Streamed blocks would be waited for, which makes a pass {error:.1f} times as long: put the model on a "
        "faster disk, use packed weights, or keep the blocks in memory."
    )
    return Check("disk", found, "note", sentence, error, bar, reason)


def read_speed(folder: Path, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the bytes per second of reading the folder's largest file, past the system's cache.

    Reads at most 0.4 GB, for about 2 seconds. Raises RequestError where there is no file of 16 MB.
    """
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    largest = max(files, key=lambda path: path.stat().st_size, default=None)
    if largest is None or largest.stat().st_size < READ_BYTES:
        raise RequestError(f"{folder} holds no file large enough to measure the disk: name the folder of a model.")
    size = largest.stat().st_size
    descriptor = os.open(largest, os.O_RDONLY)
    try:
        _bypass_cache(descriptor)
        buffer = bytearray(READ_BYTES)
        start, done = clock(), 0
        for place in range(READS):
            done += os.preadv(descriptor, [buffer], place * (size - READ_BYTES) // (READS - 1))
            if clock() - start > READ_SECONDS:
                break
        return done / (clock() - start)
    finally:
        os.close(descriptor)


def _bypass_cache(descriptor: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    else:  # macOS
        import fcntl

        fcntl.fcntl(descriptor, F_NOCACHE, 1)


def _mlx(machine: Machine) -> Check:
    wheel = f", wheel {machine.wheel_tags[0]}" if machine.wheel_tags else ", not from a wheel"
    needed = ".".join(map(str, MINIMUM_MLX))
    return Check("MLX", f"{machine.mlx}{wheel}", "ok", f"At least {needed}, which has no known fault in use here.")


def _macos(machine: Machine) -> Check:
    found = ".".join(map(str, machine.release))
    if machine.generation is not None and machine.generation >= TENSOR_GENERATION and machine.release < TENSOR_MACOS:
        return Check("macOS", found, "note", "Update to 26.2 or later: before it the tensor units are not used.")
    if machine.release < WIRED_MACOS:
        return Check("macOS", found, "note", "Update to 15 or later: before it memory cannot be wired.")
    return Check("macOS", found, "ok", "Recent enough.")


def _tf32(machine: Machine) -> Check:
    found = f"{TF32} is {'not set' if machine.tf32 is None else machine.tf32}"
    affected = machine.on_gpu and (not machine.is_metal or (machine.generation or 0) >= TENSOR_GENERATION)
    if not affected:
        return Check("TF32", found, "ok", "This device computes float32 in full.")
    if machine.tf32 == "0":
        return Check("TF32", found, "ok", "Float32 is computed in full.")
    sentence = (
        f"Start with {TF32}=0 in the environment: with TF32 the VAE's convolutions keep half their digits, and colours "
        "may shift. The blocks, in bf16, are not affected."
    )
    return Check("TF32", found, "note", sentence)


def _memory(machine: Machine, limit: int) -> Check:
    if machine.memory_bytes is None:
        return Check("memory", "not known", "note", "The system does not tell how much there is.")
    parts = [f"{machine.memory_bytes / 1e9:.0f} GB"]
    if machine.working_set_bytes is not None:
        parts.append(f"{machine.working_set_bytes / 1e9:.0f} GB recommended for the GPU")
    parts.append(f"MLX's limit {limit / 1e9:.0f} GB")
    found = ", ".join(parts)
    if machine.memory_bytes < SMALLEST_MEMORY:
        sentence = "Less than 16 GB: stream packed blocks, and choose a small size."
        return Check("memory", found, "note", sentence)
    return Check("memory", found, "ok", "`python -m mlx_backend plan` says which sizes fit.")
