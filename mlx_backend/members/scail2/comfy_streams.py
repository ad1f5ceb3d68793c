"""ComfyUI's own conditioning, as its WanSCAILToVideo makes it, to the streams of one clip.

Source of what each entry means: `WAN21_SCAIL2` in `comfy/model_base.py` and `get_area_and_mult` in `comfy/samplers.py`
of Comfy-Org/ComfyUI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import mlx.core as mx
import numpy as np

from ...interface.errors import RequestError
from ...interface.geometry import LatentSize
from ...interface.latent_space import WAN21
from ...models.scail2 import Reference, Streams

MASK_CHANNELS = 28
PERCENT_GAP = 2e-5  # WanSCAILToVideo leaves 1e-5 of the schedule between two ranges, in which none applies
SOURCE = "WanSCAILToVideo"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ComfyStreams:
    """Pictures and masks of one conditioning, float32, named as in ComfyUI; latents are raw.

    `reference_latents`: [16, n, h, w] each, the primary one first. `ref_mask_28ch` [28, n + T, h, w]: a frame per
    reference, the primary one's last, then the video's. `pose_video_latent` [16, t, h/2, w/2] of t frames, which may be
    fewer than the video's T, and `driving_mask_28ch` [28, t, h/2, w/2]. All of them may be missing.
    """

    reference_latents: tuple[np.ndarray, ...] = ()
    ref_mask_28ch: np.ndarray | None = None
    pose_video_latent: np.ndarray | None = None
    driving_mask_28ch: np.ndarray | None = None
    replacement: bool = False

    @property
    def references(self) -> int:
        """Reference frames of all reference latents."""
        return sum(latent.shape[1] for latent in self.reference_latents)

    @property
    def missing(self) -> list[str]:
        """What the model was trained with and is not there, by the names of WanSCAILToVideo's inputs."""
        found = {
            "reference_image": bool(self.reference_latents),
            "reference_image_mask": self.ref_mask_28ch is not None,
            "pose_video": self.pose_video_latent is not None,
            "pose_video_mask": self.driving_mask_28ch is not None,
        }
        return [name for name, is_there in found.items() if not is_there]

    def equals(self, other: ComfyStreams) -> bool:
        """Whether all arrays are the same."""
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def check(self, size: LatentSize) -> None:
        """Raise RequestError unless everything has the shape that a video of this size needs."""
        full, half = (size.height, size.width), (size.height // 2, size.width // 2)
        for latent in self.reference_latents:
            _check("reference_latents", latent, (WAN21.channels, None, *full))
        if self.ref_mask_28ch is not None:
            _check("ref_mask_28ch", self.ref_mask_28ch, (MASK_CHANNELS, self.references + size.frames, *full))
        if self.pose_video_latent is not None:
            _check("pose_video_latent", self.pose_video_latent, (WAN21.channels, None, *half))
            if self.driving_mask_28ch is not None:
                frames = self.pose_video_latent.shape[1]
                _check("driving_mask_28ch", self.driving_mask_28ch, (MASK_CHANNELS, frames, *half))

    @property
    def described(self) -> str:
        """What is no array."""
        return f"{'replacement' if self.replacement else 'animation'} {len(self.reference_latents)}"

    def arrays(self) -> tuple[np.ndarray | None, ...]:
        """Return all arrays, in the order of the fields."""
        return (*self.reference_latents, self.ref_mask_28ch, self.pose_video_latent, self.driving_mask_28ch)

    def streams(self) -> Streams:
        """Return what the model takes.

        The driving mask counts only beside the driving video, the references' only beside a reference.
        """
        driving, driving_mask = self.pose_video_latent, self.driving_mask_28ch
        video_mask = None if self.ref_mask_28ch is None else self.ref_mask_28ch[:, self.references :]
        return Streams(
            references=self._references(),
            driving=None if driving is None else mx.array(WAN21.normalised(driving)),
            driving_mask=None if driving is None or driving_mask is None else mx.array(driving_mask),
            replacement=self.replacement,
            video_mask=None if video_mask is None or not video_mask.any() else mx.array(video_mask),
        )

    def _references(self) -> tuple[Reference, ...]:
        """In the model's order the primary reference stands last, beside the video; here it is first."""
        latents = [mx.array(WAN21.normalised(latent)) for latent in self.reference_latents]
        if not latents:
            return ()
        frames = mx.concatenate([*latents[1:], latents[0]], axis=1)
        masks = self.ref_mask_28ch
        made = [
            Reference(frames[:, i : i + 1], None if masks is None else mx.array(masks[:, i : i + 1]))
            for i in range(self.references)
        ]
        return (made[-1], *made[:-1])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ComfyCondition:
    """One entry of a CONDITIONING: text [L, dim], CLIP tokens [257, dim] or None, and pictures and masks.

    It applies from the share `start` of the schedule to the share `end`; None: no bound.
    """

    text: np.ndarray
    clip: np.ndarray | None
    streams: ComfyStreams
    start: float | None = None
    end: float | None = None

    def applies(self, sigma: float, shift: float, slack: float = 0.0) -> bool:
        """Whether it does at this noise level, where ComfyUI would say so; `slack` widens its range, as a share."""
        level = np.float32(sigma)
        is_late = self.start is None or level <= np.float32(percent_to_sigma(self.start - slack, shift))
        return is_late and (self.end is None or level >= np.float32(percent_to_sigma(self.end + slack, shift)))


def percent_to_sigma(percent: float, shift: float) -> float:
    """Return the noise level at a share of the schedule, as ComfyUI's flow models have it."""
    if percent <= 0:
        return 1.0
    if percent >= 1:
        return 0.0
    return shift * (1 - percent) / (1 + (shift - 1) * (1 - percent))


def applying(name: str, conditions: Sequence[ComfyCondition], sigmas: Sequence[float], shift: float) -> list[int]:
    """Return which entry of the conditioning `name` applies at each noise level, by index.

    Raises RequestError where none does, or several at once, which ComfyUI would average.
    """
    chosen = []
    for step, sigma in enumerate(sigmas, start=1):
        found = [i for i, c in enumerate(conditions) if c.applies(sigma, shift)]
        if not found:
            found = [i for i, c in enumerate(conditions) if c.applies(sigma, shift, PERCENT_GAP)][:1]
        if len(found) != 1:
            entries = f"{len(found)} entries of the {name} conditioning apply"
            what = entries if found else f"no {name} conditioning applies"
            raise RequestError(
                f"At step {step} of {len(sigmas)} (sigma {sigma:.4g}) {what}, but each step takes one: connect the "
                f"outputs of {SOURCE} directly, without nodes that combine conditionings or cut their range."
            )
        chosen += found
    return chosen


def check_size(size: LatentSize) -> None:
    """Raise RequestError unless a latent's height and width are multiples of 4, pixels of 32."""
    for name, value in (("height", size.height), ("width", size.width)):
        if value < 4 or value % 4:
            raise RequestError(
                f"The latent's {name} is {value} ({value * WAN21.stride} pixels), but SCAIL-2 needs a multiple of 4 "
                f"(32 pixels): connect the latent of {SOURCE}."
            )


def _check(name: str, array: np.ndarray, wanted: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(wanted) and all(b in (None, a) for a, b in zip(array.shape, wanted, strict=True))
    if not fits or not array.size:
        shown = "[" + ", ".join("any" if n is None else str(n) for n in wanted) + "]"
        raise RequestError(
            f"'{name}' of the conditioning has the shape {list(array.shape)}, but beside this latent it must be "
            f"{shown}: connect conditioning and latent of the same {SOURCE}."
        )


def _equal(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one is other or np.array_equal(one, other)
