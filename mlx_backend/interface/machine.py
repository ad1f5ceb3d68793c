"""Machines as numbers: how much memory a run may take, and what chips have been measured to compute."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError

GIB = 1 << 30
MEMORY_SHARE = 0.75  # of unified memory; the rest is the system's and other programs'
WORKING_SET_SHARE = 0.9  # of what the device recommends: above it the system pages and slows down
CACHE_BYTES = 1 << 30  # for MLX's buffer cache: its own limit is nearly all memory, and it grew until macOS killed runs
LEAST_GB, MOST_GB = 0.001, 4096  # what a user may set; the smallest model of the tests takes a few MB
TERA = 1e12


def memory_budget(memory: int, recommended: int = 0) -> int:
    """Return the bytes that a run may take on a machine of `memory` bytes.

    `recommended` is the working set that the device recommends (`max_recommended_working_set_size`), 0 if unknown.
    """
    share = MEMORY_SHARE * memory
    return int(min(share, WORKING_SET_SHARE * recommended) if recommended else share)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a run may take: `share` bytes of the machine; `free`: what it holds now plus what nobody does, if known.

    `is_chosen`: the user has set the share.
    """

    share: int
    free: int | None = None
    is_chosen: bool = False

    @property
    def bytes(self) -> int:
        """The smaller one."""
        return self.share if self.free is None else min(self.share, self.free)

    @property
    def otherwise(self) -> str:
        """What to do where no other run would fit."""
        return "allow it more" if self.is_chosen else "use a machine with more memory"

    @property
    def advice(self) -> str:
        """What to do where the user or other programs leave less than the machine has; empty where they do not."""
        if self.is_chosen:
            return (
                f"It is memory_gb (--memory on the command line) that allows {self.share / 1e9:.3g} GB: raise it, or "
                "set it to 0 for what suits this machine."
            )
        if self.free is None or self.free >= self.share:
            return ""
        return (
            f"This machine would allow {self.share / 1e9:.1f} GB, but only {self.free / 1e9:.1f} GB are free now: "
            "close programs that hold memory (a language model server, a browser), or set memory_gb (--memory) if you "
            "know better."
        )


def chosen_memory(gigabytes: float, setting: str) -> int:
    """Return the bytes of a number of GB that the user has set, 0 where it is 0: what suits the machine.

    Raises RequestError, naming the `setting`, for what is no amount of memory.
    """
    if not (gigabytes == 0 or LEAST_GB <= gigabytes <= MOST_GB):
        raise RequestError(
            f"{setting} is {gigabytes:g} GB, but a run may take {LEAST_GB:g} to {MOST_GB:g} GB: set it in that range, "
            "or to 0 for what suits the machine."
        )
    return int(gigabytes * 1e9)


def usual_working_set(memory: int) -> int:
    """Return what macOS recommends at least on a machine of `memory` bytes: 2/3 up to 36 GiB, 3/4 above.

    Source: `recommendedMaxWorkingSetSize` in logs of llama.cpp: 10922.67 MiB of 16 GiB (llama-cpp-python#687), 21845.34
    of 32 (llama.cpp#2011), 49152 of 64 (llama.cpp#1870). Newer systems recommend more: 107.5 of 128 GiB (ds4#893).
    """
    return memory * 2 // 3 if memory <= 36 * GIB else memory * 3 // 4


@dataclass(frozen=True, slots=True)
class Chip:
    """What a chip has been measured to compute in large products and in attention, FLOP/s, and who measured it."""

    name: str
    products: float
    attention: float
    source: str


# Measured by others. None of it by this project, and none with SCAIL-2.
CHIPS = (
    Chip("M2 Max", 10.5 * TERA, 10.5 * TERA, "assumed: 75 % of the published 13.6"),
    Chip("M3 Ultra", 17.4 * TERA, 16.0 * TERA, "Rapid-MLX#258: MLX fp16 GEMM; attention 88 to 97 % of it"),
    Chip("M4 Max", 13.5 * TERA, 12.0 * TERA, "mlx-serve#122: a video DiT in MLX, attention 11.2 to 13.0"),
    Chip("M5 Max", 50.0 * TERA, 38.0 * TERA, "mlx#3821, mlx#3838: bf16 GEMM 50 to 57 with tensor units"),
    Chip("M5 Max without tensor units", 15.0 * TERA, 13.0 * TERA, "mlx#3838: bf16 GEMM, a wheel without them"),
)
DISK_BYTES_PER_S = 5e9  # a Mac's own SSD reads 5 to 13 GB/s
