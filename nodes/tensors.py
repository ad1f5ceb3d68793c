"""Between ComfyUI's torch tensors and the backend's arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..mlx_backend.spec.errors import RequestError
from ..mlx_backend.spec.geometry import LATENT_CHANNELS, latent_frames
from ..mlx_backend.spec.segments import Segment, SegmentPlan
from ..mlx_backend.spec.variants import SCAIL2

if TYPE_CHECKING:
    from ..mlx_backend.pipelines.latents import SegmentLatents

LATENT_KEY = "scail2_mlx"  # documented in docs/latent.md


def to_numpy(image: torch.Tensor | None) -> np.ndarray | None:
    """Return an IMAGE [F, H, W, 3 or 4] or MASK [F, H, W] as float32; alpha is dropped."""
    if image is None:
        return None
    array = image.detach().cpu().to(torch.float32).numpy()
    return array[..., :3] if array.ndim == 4 else array


def to_image(frames: np.ndarray) -> torch.Tensor:
    """Return frames [F, H, W, 3] as an IMAGE, without a copy."""
    return torch.from_numpy(frames)


def to_latent(latents: SegmentLatents) -> dict[str, Any]:
    """Return a LATENT: `samples` raw [S, 16, T, h, w], segments of equal length; a shorter last one lies in the tag."""
    from ..mlx_backend.pipelines.latents import raw

    plan = latents.plan
    arrays = [raw(latent) for latent in latents.segments]
    equal = [array for array in arrays if array.shape == arrays[0].shape]
    tail = [array for array in arrays if array.shape != arrays[0].shape]  # at most the last segment
    return {
        "samples": torch.from_numpy(np.stack(equal)),
        LATENT_KEY: {
            "version": 1,
            "model": SCAIL2.name,
            "frames": plan.frames,
            "overlap": plan.overlap,
            "segments": [(s.start, s.frames, s.history) for s in plan.segments],
            "tail": torch.from_numpy(tail[0]) if tail else None,
        },
    }


def from_latent(latent: dict[str, Any]) -> SegmentLatents:
    """Return what `to_latent` was given. Raises RequestError for a LATENT of another origin or shape."""
    from ..mlx_backend.pipelines.latents import SegmentLatents, normalised

    samples, tag = latent["samples"], latent.get(LATENT_KEY)
    if tag is None:
        raise RequestError(
            f"The latent (shape {list(samples.shape)}) does not come from Scail2Sampler: it lacks the "
            f"'{LATENT_KEY}' entry that says how its segments join. Connect Scail2Sampler, or use VAE Decode."
        )
    segments = tuple(Segment(*numbers) for numbers in tag["segments"])
    arrays = [*samples, *([] if tag["tail"] is None else [tag["tail"]])]
    found = [tuple(array.shape[:2]) for array in arrays]
    wanted = [(LATENT_CHANNELS, latent_frames(segment.frames)) for segment in segments]
    if found != wanted:
        raise RequestError(
            f"The latent has segments of (channels, frames) {found}, but its own plan says {wanted}: "
            "a node between the sampler and the decoder changed it, connect them directly."
        )
    plan = SegmentPlan(segments, tag["frames"], tag["overlap"])
    return SegmentLatents(tuple(normalised(a.detach().cpu().float().numpy()) for a in arrays), plan)
