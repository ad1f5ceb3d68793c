"""What a measurement or a forecast is about: the chip, the system, the versions, the memory."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import mlx.core as mx
import psutil

from .device import TF32, chip_name, imitates_bf16

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Facts, none of them measured. What the system does not tell is None.

    `system`: "Darwin" or "Linux"; `release`: of macOS, as numbers, empty elsewhere. `on_gpu`: whether MLX computes on a
    GPU. `memory_bytes`: of the device; `working_set_bytes`: the most that Metal recommends to use of it. `wheel_tags`:
    of the package that holds MLX's kernels, empty when it is no wheel. `tf32`: the variable MLX_ENABLE_TF32.
    """

    chip: str
    cores: int | None
    system: str
    architecture: str
    release: tuple[int, ...]
    on_gpu: bool
    memory_bytes: int | None
    working_set_bytes: int | None
    mlx: str
    wheel_tags: tuple[str, ...]
    tf32: str | None
    python: str

    @property
    def is_metal(self) -> bool:
        """Whether MLX computes on an Apple GPU."""
        return self.on_gpu and self.system == "Darwin"

    @property
    def generation(self) -> int | None:
        """The number in "Apple M5 Max", None for other chips."""
        found = re.search(r"\bM(\d+)\b", self.chip) if self.chip.startswith("Apple") else None
        return int(found[1]) if found else None

    @property
    def block_dtype(self) -> str:
        """The dtype that the blocks' products are computed in here."""
        if not self.on_gpu:
            return "float32"
        return "float16" if imitates_bf16(self.chip) else "bfloat16"

    def __str__(self) -> str:
        """Describe it in one line."""
        parts = [self.chip, f"{self.cores} cores"]
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 1e9:.0f} GB")
        release = f"macOS {'.'.join(map(str, self.release))}" if self.release else self.system
        parts += [f"{release} {self.architecture}", f"device {'gpu' if self.on_gpu else 'cpu'}", f"mlx {self.mlx}"]
        return ", ".join([*parts, f"Python {self.python}"])


def this_machine() -> Machine:
    """Return the facts of the machine and of MLX's default device."""
    info = mx.device_info()
    return Machine(
        chip=_chip(chip_name()),
        cores=os.cpu_count(),
        system=platform.system(),
        architecture=platform.machine(),
        release=tuple(int(part) for part in platform.mac_ver()[0].split(".") if part.isdigit()),
        on_gpu=mx.default_device() == mx.Device(mx.gpu),
        memory_bytes=_whole(info.get("memory_size")) or _memory_of_the_system(),
        working_set_bytes=_whole(info.get("max_recommended_working_set_size")),
        mlx=version("mlx"),
        wheel_tags=_wheel_tags(),
        tf32=os.environ.get(TF32),
        python=platform.python_version(),
    )


def free_memory() -> int | None:
    """Return the bytes that this process could hold now: its own and those available, within a container's limit.

    None where the system does not tell. Nothing is remembered: others come and go.
    """
    try:
        available, own = psutil.virtual_memory().available, held_memory()
    except (psutil.Error, OSError):
        return None
    limits = [available + own, *_container_limit(CGROUP, own)]
    return min(limits)


def held_memory() -> int:
    """Return the bytes that this process holds. Raises psutil.Error and OSError where the system does not tell."""
    resident = psutil.Process().memory_info().rss
    return max(resident, mx.get_active_memory() + mx.get_cache_memory())  # a Mac does not count the GPU's as resident


def _container_limit(folder: Path, own: int) -> list[int]:
    """Return what a container's limit leaves to this process, empty without one (cgroup v2)."""
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return []
    if not limit.isdigit() or not used.isdigit():
        return []
    return [max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0)) + own]


def _chip(known: str) -> str:
    """Return the processor's name, where MLX knows only its architecture."""
    info = Path("/proc/cpuinfo")
    if known in ("unknown", platform.machine()) and info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return known


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _memory_of_the_system() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _wheel_tags() -> tuple[str, ...]:
    """Return the tags of mlx-metal, which holds the Metal kernels, or of mlx where there is none."""
    for package in ("mlx-metal", "mlx"):
        try:
            text = distribution(package).read_text("WHEEL") or ""
        except PackageNotFoundError:
            continue
        return tuple(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:"))
    return ()
