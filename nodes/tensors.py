"""Between ComfyUI's torch tensors and the backend's arrays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.events import Listener
from ..mlx_backend.interface.geometry import latent_frames
from ..mlx_backend.interface.latent_space import SPACES, TEMPORAL_STRIDE
from ..mlx_backend.interface.pictures import Pictures
from ..mlx_backend.interface.segments import Segment, SegmentPlan
from ..mlx_backend.media.decode import VideoFile
from ..mlx_backend.media.footage import Footage, seen
from ..mlx_backend.media.timing import resampling
from ..mlx_backend.members.scail2 import MEMBER
from .videos import LazyVideo

if TYPE_CHECKING:
    from ..mlx_backend.pipelines.latents import SegmentLatents
    from ..mlx_backend.pipelines.picture import ClipRequest
    from ..mlx_backend.pipelines.text import TextFeatures

COLOURS = (3, 4)  # how many numbers a pixel of an IMAGE has
LATENT_KEY = "scail2_mlx"  # documented in docs/latent.md
# What WanSCAILToVideo of ComfyUI puts into a CONDITIONING.
CORE_KEYS = ("ref_mask_flag", "reference_latents", "ref_mask_28ch", "pose_video_latent", "driving_mask_28ch")


def to_numpy(image: torch.Tensor | None) -> np.ndarray | None:
    """Return an IMAGE [F, H, W, 3 or 4] or MASK [F, H, W] as float32; alpha is dropped.

    Other packs make MASKs [H, W], [F, H, W, 1] and [F, 1, H, W], which mean the same. Raises RequestError for others.
    """
    if image is None:
        return None
    array = image.detach().cpu().to(torch.float32).numpy()
    if array.ndim == 2:
        return array[None]
    if array.ndim == 4 and array.shape[3] == 1:
        return array[..., 0]
    if array.ndim == 4 and array.shape[1] == 1 and array.shape[3] not in COLOURS:
        return array[:, 0]
    if array.ndim != 3 and not (array.ndim == 4 and array.shape[3] in COLOURS):
        raise RequestError(
            f"A picture or mask has the shape {list(array.shape)}, but pictures are [frames, height, width, 3 or 4] "
            "and masks [frames, height, width]: connect the output of a node that makes IMAGE or MASK."
        )
    return array[..., :3] if array.ndim == 4 else array


def to_pictures(given: Any, fps: float | None, listener: Listener) -> Pictures | None:
    """Return an IMAGE or a MASK as `to_numpy` does, and a VIDEO as it is seen at a rate (None: the model's)."""
    pictures, own = to_clip(given)
    fps = fps or MEMBER.defaults.driving_fps
    if isinstance(pictures, Footage):
        return pictures.at_rate(fps, listener)
    return pictures if own is None else seen(pictures, resampling(len(pictures), own, fps))


def rate_of(given: Any) -> float | None:
    """Return the rate that was chosen for a VIDEO when it was loaded, None where nobody has chosen one."""
    return given.fps if isinstance(given, LazyVideo) else None


def to_clip(given: Any) -> tuple[Pictures | None, float | None]:
    """Return an IMAGE or a MASK as `to_numpy` does, with no rate; a VIDEO as pictures with its own.

    A VIDEO of a file is decoded when its pictures are needed, and its trim is kept; another is taken from memory.
    """
    if isinstance(given, LazyVideo):
        return given.pictures, given.fps
    if not hasattr(given, "get_components"):
        return to_numpy(given), None
    # Only files have a source of their own; others would be encoded for it.
    source = given.get_stream_source() if "get_stream_source" in vars(type(given)) else None
    if not isinstance(source, str) or not hasattr(given, "get_active_trim_window"):
        components = given.get_components()
        return to_numpy(components.images), float(components.frame_rate)
    footage = Footage.of(VideoFile.of(Path(source)))
    start, duration = given.get_active_trim_window()
    if start or duration:
        footage = footage.between(start, start + duration if duration else math.inf)
    return footage, footage.fps


def to_image(frames: np.ndarray) -> torch.Tensor:
    """Return frames [F, H, W, 3] as an IMAGE, without a copy."""
    return torch.from_numpy(frames)


def to_latent(latents: SegmentLatents) -> dict[str, Any]:
    """Return a LATENT: `samples` raw [S, 16, T, h, w], segments of equal length; a shorter last one lies in the tag."""
    plan = latents.plan
    arrays = [latents.space.raw(latent) for latent in latents.segments]
    equal = [array for array in arrays if array.shape == arrays[0].shape]
    tail = [array for array in arrays if array.shape != arrays[0].shape]  # at most the last segment
    return {
        "samples": torch.from_numpy(np.stack(equal)),
        LATENT_KEY: {
            "version": 1,
            "model": MEMBER.name,
            "frames": plan.frames,
            "overlap": plan.overlap,
            "anchor": "lab" if latents.matches_colours else "off",
            "segments": [(s.start, s.frames, s.history) for s in plan.segments],
            "tail": torch.from_numpy(tail[0]) if tail else None,
        },
    }


def from_latent(latent: dict[str, Any]) -> SegmentLatents:
    """Return what `to_latent` was given, or a plain LATENT as one segment, whole. Raises RequestError for others."""
    from ..mlx_backend.pipelines.latents import SegmentLatents

    samples, tag = latent["samples"], latent.get(LATENT_KEY)
    if tag is None:
        tag = _plain_tag(samples)
    segments = tuple(Segment(*numbers) for numbers in tag["segments"])
    arrays = [*samples, *([] if tag["tail"] is None else [tag["tail"]])]
    found = [tuple(array.shape[:2]) for array in arrays]
    space = SPACES.get(samples.shape[1]) or next(iter(SPACES.values()))
    wanted = [(space.channels, latent_frames(segment.frames)) for segment in segments]
    if found != wanted:
        raise RequestError(
            f"The latent has segments of (channels, frames) {found}, but its own plan says {wanted}: "
            "a node between the sampler and the decoder changed it, connect them directly."
        )
    plan = SegmentPlan(segments, tag["frames"], tag["overlap"])
    return SegmentLatents(
        tuple(space.normalised(a.detach().cpu().float().numpy()) for a in arrays),
        plan,
        matches_colours=tag.get("anchor") == "lab",
        space=space,
    )


def _plain_tag(samples: torch.Tensor) -> dict[str, Any]:
    """Return the tag of a clip that another sampler made, as one segment."""
    shape = tuple(samples.shape)
    if len(shape) != 5 or shape[0] != 1 or shape[1] not in SPACES or not samples.numel():
        raise RequestError(
            f"The latent has the shape {list(shape)}, but without the '{LATENT_KEY}' entry of Scail2Sampler, which "
            f"says how segments join, it must be one clip, [1, {' or '.join(map(str, SPACES))}, frames, height, "
            "width]: connect the sampler directly, choose one of a batch with Latent From Batch, or use VAE Decode."
        )
    frames = TEMPORAL_STRIDE * (shape[2] - 1) + 1
    return {"segments": [(0, frames, 0)], "frames": frames, "overlap": 1, "tail": None}


def to_text(text: TextFeatures | list, negative: list | None, *, is_guided: bool) -> TextFeatures:
    """Return the features of a text socket: ours as they are, or a CONDITIONING of ComfyUI's with its `negative` one.

    Raises RequestError for conditionings with more in them than text.
    """
    from ..mlx_backend.pipelines.text import TextFeatures

    if not isinstance(text, list):
        if negative is not None:
            raise RequestError(
                "'negative' is connected, but 'text' comes from SCAIL-2 Prompt, which has a negative prompt of its "
                "own: connect CONDITIONING to both, or nothing to 'negative'."
            )
        return text
    if negative is None and is_guided:
        raise RequestError(
            "'text' is a CONDITIONING and cfg is above 1, which needs a negative prompt: connect one to 'negative', or "
            "set cfg to 1."
        )
    positive = _text_of("text", text)
    return TextFeatures(positive, np.zeros_like(positive[:1]) if negative is None else _text_of("negative", negative))


def _text_of(name: str, conditioning: list) -> np.ndarray:
    if len(conditioning) != 1:
        raise RequestError(
            f"'{name}' holds {len(conditioning)} conditionings, but this sampler takes one: connect CLIP Text Encode "
            "directly."
        )
    ((text, options),) = conditioning
    if any(key in options for key in CORE_KEYS):
        raise RequestError(
            f"'{name}' comes from WanSCAILToVideo, whose pictures this sampler does not read: connect CLIP Text Encode "
            "directly, or use SCAIL-2 Sampler for core conditioning."
        )
    return one_of(f"text of '{name}'", text)


def to_clip_request(features: ClipRequest | Any) -> ClipRequest:
    """Return the request of a socket for CLIP features: ours as it is, or the tokens of a CLIP_VISION_OUTPUT."""
    from ..mlx_backend.pipelines.picture import ClipRequest

    if not hasattr(features, "penultimate_hidden_states"):
        return features
    return ClipRequest(None, None, clip_tokens(features))


def clip_tokens(output: Any, clip: int = 0) -> np.ndarray | None:
    """Return the tokens [257, dim] of a CLIP_VISION_OUTPUT for the clip of that number. Raises RequestError."""
    if output is None:
        return None
    tokens = getattr(output, "penultimate_hidden_states", None)
    if tokens is None or tokens.ndim != 3:
        raise RequestError(
            "The CLIP_VISION_OUTPUT has no penultimate_hidden_states [pictures, tokens, width]: connect CLIP Vision "
            "Encode, with clip_vision_h."
        )
    return one_of("CLIP_VISION_OUTPUT", tokens, clip)


def one_of(name: str, tensor: torch.Tensor | None, clip: int = 0) -> np.ndarray | None:
    """Return one of a batch, the one of that number or round again; None stays None. Raises RequestError."""
    if tensor is None:
        return None
    if not isinstance(tensor, torch.Tensor) or tensor.ndim < 3 or not len(tensor):
        raise RequestError(f"The {name} is not a tensor with a batch, as ComfyUI's nodes make it: connect those.")
    return to_array(tensor[clip % len(tensor)])


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as float32."""
    return tensor.detach().cpu().to(torch.float32).numpy()
