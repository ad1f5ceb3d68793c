"""The device that MLX computes on, and the precision that goes with it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..spec.errors import DependencyError, RequestError
from .blas import load_fast_blas

MINIMUM_MLX = (0, 32, 2)
PRECISIONS = ("auto", "float32")


def require_mlx() -> None:
    """Make MLX ready: a fast BLAS before it where one is needed, and a version without the known kernel faults.

    Raises DependencyError that says what to install.
    """
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
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"MLX {found} is installed but cannot start ({error}): reinstall it, on Linux with its backend: "
            "pip install -U 'mlx[cpu]'."
        ) from error


def compute_dtype(precision: str):  # noqa: ANN201 - an mlx Dtype, but this module must import without MLX
    """Return the dtype of the networks' products: float32, or None for that of the weights as published.

    "auto" is float32 on the CPU, whose half-precision products are slower and no leaner, and None on a GPU.
    """
    import mlx.core as mx

    if precision not in PRECISIONS:
        raise RequestError(f"The precision '{precision}' is unknown: choose one of {', '.join(PRECISIONS)}.")
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return mx.float32 if precision == "float32" or on_cpu else None
