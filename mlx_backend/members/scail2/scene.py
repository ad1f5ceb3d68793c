"""A scene as the model sees it: checked, cut, resized, cropped, with the background that the mode wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...interface.errors import RequestError
from ...interface.events import Listener
from ...interface.geometry import check_size, oriented_size
from ...interface.pictures import Pictures
from ...interface.requests import SamplingSettings, Scene
from ...interface.segments import Segment
from ...media.footage import Footage, fitted
from ...media.resize import MASK, PHOTO, fit
from ..member import EncodedPictures, Encoding
from .checks import check_mask, check_shape, checked_pixels, tell_surplus
from .masks import PERSON_THRESHOLD, driving_background, painted, reference_background


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreparedScene:
    """Everything at one size, float32: pictures [F, H, W, 3], videos in 0..1, references with bicubic's overshoot.

    `reference_masks` has one entry per reference, None where it has no mask.
    """

    references: np.ndarray
    reference_masks: tuple[np.ndarray | None, ...]
    driving: Pictures
    driving_mask: Pictures | None
    is_replacement: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.driving.shape[2], self.driving.shape[1]

    @property
    def described(self) -> str:
        """See PreparedPictures."""
        return str(self.is_replacement)

    def arrays(self) -> tuple[np.ndarray | None, ...]:
        """See PreparedPictures."""
        return (self.references, *self.reference_masks)

    def arrays_of(self, segment: Segment) -> Iterator[np.ndarray]:
        """See PreparedPictures."""
        yield window(self.driving, segment)
        if self.driving_mask is not None:
            yield window(self.driving_mask, segment)

    def encode(self, how: Encoding, settings: SamplingSettings) -> EncodedPictures:
        """See PreparedPictures."""
        from .streams import EncodedScene, encode_references

        return EncodedScene(self, encode_references(self, how), how, settings.pose_rope)


def window(frames: Pictures, segment: Segment) -> np.ndarray:
    """Return the segment's frames, the last one repeated where the video has ended."""
    return frames[np.minimum(np.arange(segment.start, segment.start + segment.frames), len(frames) - 1)]


def prepare_scene(scene: Scene, listener: Listener) -> PreparedScene:
    """Check and resize the pictures of a scene. Raises RequestError; warns about what can still be used.

    Source of sizes and crops: `generate.py` of zai-org/SCAIL-2; masks are scaled by nearest neighbour instead of
    bicubic, so that their colours stay pure.
    """
    check_size(scene.width, scene.height)
    given = {"driving video": scene.driving, "driving mask": scene.driving_mask}
    scene = _checked(scene, listener)
    references = scene.references
    width, height = scene.width, scene.height
    if scene.follow_orientation:
        width, height = oriented_size(width, height, references.shape[2], references.shape[1])
    for name, pictures in given.items():
        tell_surplus(name, pictures, scene.cut, (width, height), listener)

    driving_mask, reference_masks = scene.driving_mask, scene.reference_masks
    if driving_mask is not None:
        driving_mask = fitted(driving_mask, width, height, MASK)
        background = driving_background(replacement=scene.is_replacement)
        check_mask("driving mask", driving_mask, background, scene.mode, listener, first=scene.start_frame)
    masks: list[np.ndarray | None] = [None] * len(references)
    if reference_masks is not None:
        reference_masks = fit(reference_masks, width, height, MASK)
        background = reference_background(replacement=scene.is_replacement)
        check_mask("reference mask", reference_masks, background, scene.mode, listener, scenes=1)
        masks[: len(reference_masks)] = [mask[None] for mask in reference_masks]

    return PreparedScene(
        references=blacked_out(fit(references, width, height, PHOTO), masks, scene),
        reference_masks=tuple(masks),
        driving=_fit_video(scene.driving, width, height),
        driving_mask=driving_mask,
        is_replacement=scene.is_replacement,
    )


def prepare_picture(picture: np.ndarray, like: PreparedScene, scene: Scene, listener: Listener) -> np.ndarray:
    """Return a picture [1, H, W, 3] treated exactly as the primary reference of `scene` was: [H, W, 3]."""
    if np.array_equal(picture[:1], scene.references[:1]):  # checked already, and told if anything was wrong with it
        return like.references[0]
    width, height = like.size
    picture = fit(checked_pixels("reference image for CLIP", picture[:1], listener), width, height, PHOTO)
    return blacked_out(picture, like.reference_masks[:1], scene)[0]


def blacked_out(
    references: np.ndarray, masks: tuple[np.ndarray | None, ...] | list[np.ndarray | None], scene: Scene
) -> np.ndarray:
    """Return references [N, H, W, 3] black outside their person, in replacement mode and where they have a mask."""
    if not (scene.is_replacement and scene.black_background):
        return references
    return np.stack(
        [
            picture if mask is None else black_around(picture, mask[0])
            for picture, mask in zip(references, masks, strict=True)
        ]
    )


def black_around(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture [H, W, 3], black where its coloured mask [H, W, 3] is black."""
    return picture * (mask.max(axis=-1, keepdims=True) > PERSON_THRESHOLD)


def _fit_video(driving: Pictures, width: int, height: int) -> Pictures:
    made = fitted(driving, width, height, PHOTO)
    if isinstance(made, Footage) or made.shape == driving.shape:
        return made
    return (np.clip(made, 0, 1) * 255).round() / np.float32(255)  # upstream scales videos as 8-bit pictures


def _checked(scene: Scene, listener: Listener) -> Scene:
    """Check counts and pixels and cut the driving video; masks become coloured pictures."""
    references = checked_pixels("reference image", scene.references, listener)
    check_shape("driving video", scene.driving)
    frames = len(scene.driving)
    if scene.start_frame >= frames:
        raise RequestError(
            f"The start frame is {scene.start_frame}, but the driving video has {_counted(scene.driving, 'frame')}: "
            f"choose 0 to {frames - 1}."
        )
    driving = checked_pixels("driving video", scene.driving[scene.cut], listener, first=scene.start_frame)
    driving_mask = scene.driving_mask
    if driving_mask is None:
        listener.warn(
            "There is no driving mask: SCAIL-2 was trained with masks, and results are better with one connected to "
            "'driving_mask'."
        )
    else:
        if driving_mask.ndim > 2 and len(driving_mask) != frames:
            raise RequestError(
                f"The driving mask has {_counted(driving_mask, 'frame')} and the driving video {frames}: "
                "they must go frame by frame, so load both from the same range, or repeat a still mask."
            )
        background = driving_background(replacement=scene.is_replacement)
        driving_mask = coloured("driving mask", driving_mask[scene.cut], background, listener, scene.start_frame)
        tell_size("driving mask", driving_mask, "driving video", driving, listener)
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
        listener.warn(
            f"There is no {what}: SCAIL-2 was trained with masks, and results are better with one per picture "
            "connected to 'reference_mask'."
        )
        return None
    masks = coloured("reference mask", masks, reference_background(replacement=scene.is_replacement), listener)
    if len(masks) > len(references):
        raise RequestError(
            f"There are {_counted(masks, 'reference mask')}, but {_counted(references, 'reference image')}: "
            "give one mask per image, in the same order."
        )
    if len(masks) < len(references):
        listener.warn(
            f"The {_counted(references, 'reference image')} have {_counted(masks, 'reference mask')}: the model may "
            f"ignore the last {len(references) - len(masks)} without; connect one per image, in the same order, to "
            "'reference_mask'."
        )
    tell_size("reference mask", masks, "reference image", references, listener)
    return masks


def _counted(pictures: Pictures, what: str) -> str:
    return f"{len(pictures)} {what}{'s' * (len(pictures) != 1)}"


def coloured(
    name: str, mask: Pictures, background: tuple[float, float, float], listener: Listener, first: int = 0
) -> Pictures:
    """Return a mask [F, H, W] or [F, H, W, 3], checked, as coloured pictures; a plain one is one person."""
    mask = checked_pixels(name, mask, listener, is_mask=True, first=first)
    return painted(mask, background) if mask.ndim == 3 else mask


def tell_size(name: str, mask: Pictures, other: str, pictures: Pictures, listener: Listener) -> None:
    """Warn when a mask and its pictures differ in size."""
    if mask.shape[1:3] != pictures.shape[1:3]:
        listener.warn(
            f"The {name} has {mask.shape[2]} x {mask.shape[1]} pixels and the {other} {pictures.shape[2]} x "
            f"{pictures.shape[1]}: each is resized and cropped on its own, so check that they show the same part."
        )
