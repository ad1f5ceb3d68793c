"""Training of a small SCAIL-2 on the world of puppets: see README.md."""

from mlx_backend.runtime.device import require_mlx

require_mlx()  # before a module of this package imports MLX or PyTorch, so that MLX finds its own fast BLAS
