"""How large the checks are: as a run for a GPU, a toy for the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_backend.diagnostics.bench import NARROW, WIDE
from mlx_backend.diagnostics.numerics import Scale
from mlx_backend.interface.geometry import LatentSize
from mlx_backend.interface.sizes import SCAIL2_VAE, Scail2Config, VAEConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """`scale`: of the doctor, None: what suits the machine; `cases`: golden runs.

    `equal`: a DiT that is run in every way, with its latent; `block`: one layer, with the latent of a pass; `vae`: with
    (width, height, frames) and the tile in pixels; `run`: width of the DiT, of the VAE, of text and CLIP encoder, and
    width, height and frames of a run that is predicted.
    """

    scale: Scale | None
    cases: tuple[int, ...]
    equal: tuple[Scail2Config, LatentSize]
    block: tuple[Scail2Config, LatentSize]
    vae: tuple[VAEConfig, tuple[int, int, int], int]
    run: tuple[int, int, int, int, tuple[int, int, int]]


def full() -> Sizes:
    """Return the sizes of real runs: 832x480, 81 frames, 42,510 tokens; runs that are predicted hold about 1 GB."""
    return Sizes(
        scale=None,
        cases=(0, 1, 3),
        equal=(NARROW, LatentSize(16, 32, 48)),
        block=(replace(WIDE, num_layers=1, text_dim=4096), LatentSize.of_pixels(81, 832, 480)),
        vae=(SCAIL2_VAE, (832, 480, 81), 256),
        run=(1536, 96, 1024, 640, (512, 320, 17)),
    )


def toy() -> Sizes:
    """Return what takes seconds on a CPU."""
    tiny = replace(NARROW, dim=256, ffn_dim=512, num_heads=2, num_layers=1, text_dim=64, clip_dim=64)
    small = Scale(
        rows=(65,),
        depth=64,
        heads=1,
        dtypes=(("float32", (128,)),),
        fused_rows=8,
        frames=((8, 8, 8),),
        on_gpu=False,
    )
    return Sizes(
        scale=small,
        cases=(2,),
        equal=(tiny, LatentSize(1, 16, 16)),
        block=(tiny, LatentSize(1, 16, 16)),
        vae=(replace(SCAIL2_VAE, dim=8), (160, 32, 5), 128),
        run=(256, 8, 256, 160, (96, 64, 5)),
    )
