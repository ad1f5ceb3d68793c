"""The device that MLX computes on, and the precision that goes with it."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from ..interface.errors import DependencyError, RequestError
from ..interface.events import LOGGER
from .blas import load_fast_blas

MINIMUM_MLX = (0, 32, 2)
PRECISIONS = ("auto", "float32")
TF32 = "MLX_ENABLE_TF32"


def require_mlx() -> None:
    """Make MLX ready: a fast BLAS before it where one is needed, no TF32, a version without the known kernel faults.

    Raises DependencyError that says what to install.
    """
    _require_arm()
    try:
        found = version("mlx")
    except PackageNotFoundError as error:
        raise DependencyError(
            "MLX is not installed, and SCAIL-2 computes with it. On a Mac with Apple silicon: pip install -U mlx; "
            "on Linux: pip install -U 'mlx[cpu]' (slow) or 'mlx[cuda13]'."
        ) from error
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < MINIMUM_MLX:
        raise DependencyError(
            f"MLX {found} is installed, but at least {'.'.join(map(str, MINIMUM_MLX))} is needed: older ones corrupt "
            "products above 32,767 rows and large convolutions. Update it: pip install -U mlx."
        )
    load_fast_blas()
    _forbid_tf32()
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"MLX {found} is installed but cannot start ({error}): reinstall it, on Linux with its backend: "
            "pip install -U 'mlx[cpu]'."
        ) from error


def _require_arm() -> None:
    """Refuse a Mac's Python for Intel, for which there is no MLX: pip would only say that it finds no version."""
    if platform.system() == "Darwin" and platform.machine() != "arm64":
        raise DependencyError(
            f"This Python ({sys.executable}) is one for Intel ({platform.machine()}), and MLX runs on Apple silicon "
            "only. On a Mac with an M chip it is running under Rosetta: install ComfyUI with a Python for arm64 (the "
            "ComfyUI Desktop app brings one, python.org's and Homebrew's in /opt/homebrew are some). Intel Macs cannot "
            "run SCAIL-2 here."
        )


def _forbid_tf32() -> None:
    """Keep float32 products in float32, which MLX reads from the environment at its first operation.

    With TF32, M5 chips lose three digits in the VAE's convolutions (Winograd; mlx issue 4242). bf16 is not affected.
    """
    if os.environ.setdefault(TF32, "0") != "0":
        LOGGER.warning(
            "The environment sets %s=%s, which costs accuracy in the VAE on M5 chips: unset it, or set it to 0.",
            TF32,
            os.environ[TF32],
        )


def compute_dtype(precision: str, component: str):  # noqa: ANN201 - an mlx Dtype, but this module must import without MLX
    """Return the dtype of a component's products: float32, float16, or None for that of the weights as published.

    "auto" is float32 on the CPU, whose half-precision products are slower and no leaner, and None on a GPU; but the
    DiT ("dit") computes in float16 on M1 and M2 chips, which only imitate bf16.
    """
    import mlx.core as mx

    if precision not in PRECISIONS:
        raise RequestError(f"The precision '{precision}' is unknown: choose one of {', '.join(PRECISIONS)}.")
    if precision == "float32" or mx.default_device() == mx.Device(mx.cpu):
        return mx.float32
    return mx.float16 if component == "dit" and imitates_bf16(chip_name()) else None


def chip_name() -> str:
    """Return the name of the chip that MLX computes on, as far as MLX knows it."""
    import mlx.core as mx

    info = mx.device_info()
    return str(info.get("device_name") or info.get("architecture") or "unknown")


def imitates_bf16(chip: str) -> bool:
    """Whether a chip computes bf16 in software: the GPUs of Apple's M1 and M2, on which float16 is a fifth faster."""
    return re.match(r"Apple M[12]\b", chip) is not None
