"""A fast BLAS for MLX on Linux. Must run before MLX is first imported.

MLX's Linux wheel carries the reference BLAS, 29 to 60 times slower than OpenBLAS. Symbols of a library that is loaded
globally before it win, so loading one is enough. On macOS MLX uses Metal and Accelerate, and nothing is done.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import platform
import sys
from pathlib import Path

LOGGER = logging.getLogger("scail2_mlx")


def load_fast_blas() -> str | None:
    """Load OpenBLAS, or else torch's own library, globally; return which, None on other systems or if MLX is loaded.

    Says once, in the log, when neither is found.
    """
    if platform.system() != "Linux" or "mlx.core" in sys.modules:
        return None
    for find in (lambda: "libopenblas.so.0", _torch_library):
        name = find()
        try:
            if name is not None:
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
                return name
        except OSError:
            continue
    LOGGER.warning(
        "No fast BLAS was found, so MLX computes with its own, 29 to 60 times slower: "
        "install OpenBLAS (Debian: apt-get install libopenblas0-pthread)."
    )
    return None


def _torch_library() -> str | None:
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):  # a hidden or half-removed torch
        return None
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "lib" / "libtorch_cpu.so")
