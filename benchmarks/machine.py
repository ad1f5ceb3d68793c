"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx


def describe_machine() -> str:
    """Return processor, cores, system, device and versions in one line."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"device {mx.default_device()}, mlx {version('mlx')}, Python {platform.python_version()}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return str(mx.device_info().get("device_name", platform.processor() or "unknown processor"))
