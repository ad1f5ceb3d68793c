"""A scene as the model sees it: checked, cut, resized, cropped, with the background that the mode wants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..media.resize import MASK, PHOTO, fit
from ..spec.errors import RequestError
from ..spec.events import Listener
from ..spec.geometry import oriented_size
from ..spec.requests import Scene
from .checks import check_mask, checked_pixels
from .masks import driving_background, painted, reference_background

PERSON_THRESHOLD = 0.1  # a reference pixel belongs to the person where its mask has any channel above this


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreparedScene:
    """Everything at one size, float32: pictures [F, H, W, 3], videos in 0..1, references with bicubic's overshoot.

    `reference_masks` has one entry per reference, None where it has no mask.
    """

    references: np.ndarray
    reference_masks: tuple[np.ndarray | None, ...]
    driving: np.ndarray
    driving_mask: np.ndarray | None
    is_replacement: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.driving.shape[2], self.driving.shape[1]


def prepare_scene(scene: Scene, listener: Listener) -> PreparedScene:
    """Check and resize the pictures of a scene. Raises RequestError; warns about what can still be used.

    Source of sizes and crops: `generate.py` of zai-org/SCAIL-2; masks are scaled by nearest neighbour instead of
    bicubic, so that their colours stay pure.
    """
    scene = _checked(scene, listener)
    references = scene.references
    width, height = scene.width, scene.height
    if scene.follow_orientation:
        width, height = oriented_size(width, height, references.shape[2], references.shape[1])

    driving_mask, reference_masks = scene.driving_mask, scene.reference_masks
    if driving_mask is not None:
        driving_mask = fit(driving_mask, width, height, MASK)
        check_mask("driving mask", driving_mask, driving_background(replacement=scene.is_replacement), listener)
    masks: list[np.ndarray | None] = [None] * len(references)
    if reference_masks is not None:
        fitted = fit(reference_masks, width, height, MASK)
        background = reference_background(replacement=scene.is_replacement)
        for i, mask in enumerate(fitted):
            check_mask("reference mask", mask[None], background, listener)
            masks[i] = mask[None]

    return PreparedScene(
        references=blacked_out(fit(references, width, height, PHOTO), masks, scene),
        reference_masks=tuple(masks),
        driving=_fit_video(scene.driving, width, height),
        driving_mask=driving_mask,
        is_replacement=scene.is_replacement,
    )


def prepare_picture(picture: np.ndarray, like: PreparedScene, scene: Scene, listener: Listener) -> np.ndarray:
    """Return a picture [1, H, W, 3] treated exactly as the primary reference of `scene` was: [H, W, 3]."""
    width, height = like.size
    fitted = fit(checked_pixels("CLIP image", picture[:1], listener), width, height, PHOTO)
    return blacked_out(fitted, like.reference_masks[:1], scene)[0]


def blacked_out(
    references: np.ndarray, masks: tuple[np.ndarray | None, ...] | list[np.ndarray | None], scene: Scene
) -> np.ndarray:
    """Return references [N, H, W, 3] black outside their person, in replacement mode and where they have a mask."""
    if not (scene.is_replacement and scene.black_background):
        return references
    return np.stack(
        [
            picture if mask is None else picture * (mask[0].max(axis=-1, keepdims=True) > PERSON_THRESHOLD)
            for picture, mask in zip(references, masks, strict=True)
        ]
    )


def _fit_video(driving: np.ndarray, width: int, height: int) -> np.ndarray:
    fitted = fit(driving, width, height, PHOTO)
    if fitted.shape == driving.shape:
        return fitted
    return (np.clip(fitted, 0, 1) * 255).round() / np.float32(255)  # upstream scales videos as 8-bit pictures


def _checked(scene: Scene, listener: Listener) -> Scene:
    """Check counts and pixels and cut the driving video; masks become coloured pictures."""
    references = checked_pixels("reference image", scene.references, listener)
    driving = scene.driving
    if len(driving) == 0:
        raise RequestError("The driving video has 0 frames: connect a video with at least one frame.")
    frames = len(driving)
    if scene.start_frame >= frames:
        raise RequestError(
            f"The start frame is {scene.start_frame}, but the driving video has {frames} frames (0 to {frames - 1})."
        )
    cut = slice(scene.start_frame, scene.start_frame + scene.max_frames if scene.max_frames else None)
    driving = checked_pixels("driving video", driving[cut], listener)
    driving_mask = scene.driving_mask
    if driving_mask is None:
        listener.warn("There is no driving mask: SCAIL-2 was trained with masks, results are better with one.")
    else:
        if len(driving_mask) != frames:
            raise RequestError(
                f"The driving mask has {len(driving_mask)} frames and the driving video {frames}: "
                "they must go frame by frame, so load both from the same range."
            )
        driving_mask = _coloured(
            "driving mask", driving_mask[cut], driving_background(replacement=scene.is_replacement), listener
        )
        _tell_size("driving mask", driving_mask, "driving video", driving, listener)
    return replace(
        scene,
        references=references,
        reference_masks=_reference_masks(scene, references, listener),
        driving=driving,
        driving_mask=driving_mask,
    )


def _reference_masks(scene: Scene, references: np.ndarray, listener: Listener) -> np.ndarray | None:
    masks = scene.reference_masks
    if masks is None:
        what = "reference mask" if len(references) == 1 else "mask for the reference and the extra references"
        listener.warn(f"There is no {what}: SCAIL-2 was trained with masks, results are better with one.")
        return None
    if len(masks) > len(references):
        raise RequestError(
            f"There are {len(masks)} reference masks for {len(references)} reference images: "
            "give one mask per image, in the same order."
        )
    if len(masks) < len(references):
        listener.warn(
            f"There are {len(masks)} reference masks for {len(references)} reference images: "
            f"{len(references) - len(masks)} extra references go without a mask, and the model may ignore them."
        )
    masks = _coloured("reference mask", masks, reference_background(replacement=scene.is_replacement), listener)
    _tell_size("reference mask", masks, "reference image", references, listener)
    return masks


def _coloured(name: str, mask: np.ndarray, background: tuple[float, float, float], listener: Listener) -> np.ndarray:
    mask = checked_pixels(name, mask, listener)
    return painted(mask, background) if mask.ndim == 3 else mask


def _tell_size(name: str, mask: np.ndarray, other: str, pictures: np.ndarray, listener: Listener) -> None:
    if mask.shape[1:3] != pictures.shape[1:3]:
        listener.warn(
            f"The {name} has {mask.shape[2]} x {mask.shape[1]} pixels and the {other} {pictures.shape[2]} x "
            f"{pictures.shape[1]}: each is resized and cropped on its own."
        )
