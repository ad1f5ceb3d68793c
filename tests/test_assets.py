"""The shipped samples are what `demo.draw_assets` draws, and fit together."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from demo.draw_assets import (
    BLUE,
    CENTRE,
    FRAME_COUNT,
    FRAME_RATE,
    GROUND,
    Mode,
    beach,
    driving_mask,
    driving_picture,
    driving_pose,
    reference_mask,
    reference_picture,
    stage,
    write_video,
)
from demo.drawing import FRAME_SIZE
from demo.skeleton import Proportions, joints

ASSETS = Path(__file__).parents[1] / "assets"

SOME_FRAMES = (0, 6, 13, 32)

CHROMA_ERROR = 4.0
"""Mean error allowed in a decoded frame (levels of 255).  Halving the resolution of the colours, as every
common video does, costs 2.4 by itself in this scene full of fine folds; compression adds 0.2."""

MASK_ERROR = 1.0
"""Mean error allowed in a decoded mask: flat colours survive, only the figure's edge is blurred."""


@cache
def decoded(name: str) -> np.ndarray:
    """All frames (frames, height, width, 3) of a shipped video, as a user's reader decodes them."""
    with av.open(ASSETS / name) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shipped_picture(name: str) -> np.ndarray:
    with Image.open(ASSETS / name) as picture:
        return np.asarray(picture.convert("RGB"))


def levels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Absolute differences in levels."""
    return np.abs(left.astype(np.int16) - right.astype(np.int16))


def away_from_edges(inside: np.ndarray, pixels: int = 2) -> np.ndarray:
    """The True pixels (height, width) that have none but True ones within some pixels of them."""
    padded = np.pad(inside, pixels, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (2 * pixels + 1,) * 2).all(axis=(2, 3))


def test_reference_is_what_is_drawn():
    # PNG is lossless; a level or two is left to other versions of Pillow's rasteriser and numpy's arithmetic.
    assert levels(shipped_picture("reference.png"), reference_picture()).mean() < 0.5


@pytest.mark.parametrize("mode", Mode)
def test_reference_masks_are_what_is_drawn(mode):
    mask = shipped_picture(f"reference_mask{mode.suffix}.png")
    assert (levels(mask, reference_mask(mode)).max(axis=2) > 0).mean() < 1e-3
    colours = {tuple(colour) for colour in np.unique(mask.reshape(-1, 3), axis=0).tolist()}
    assert colours == {BLUE, mode.reference_background}


def test_driving_video_is_what_is_drawn():
    video, scene = decoded("driving.mp4"), stage()
    assert video.shape == (FRAME_COUNT, FRAME_SIZE[1], FRAME_SIZE[0], 3)
    for index in SOME_FRAMES:
        assert levels(video[index], driving_picture(scene, index)).mean() < CHROMA_ERROR


def test_driving_video_plays_at_the_stated_rate():
    with av.open(ASSETS / "driving.mp4") as container:
        assert container.streams.video[0].average_rate == FRAME_RATE


@pytest.mark.parametrize("mode", Mode)
def test_driving_masks_are_what_is_drawn(mode):
    masks = decoded(f"driving_mask{mode.suffix}.mp4")
    assert masks.shape == decoded("driving.mp4").shape
    for index in SOME_FRAMES:
        drawn = driving_mask(mode, index)
        assert levels(masks[index], drawn).mean() < MASK_ERROR
        # Each channel is on or off on the two sides of 225; only edge pixels may fall on the wrong one.
        same = ((masks[index] > 225) == (drawn > 225)).all(axis=2)
        assert same.mean() > 0.99


@pytest.mark.parametrize("mode", Mode)
def test_decoded_mask_colours_are_pure(mode):
    masks = decoded(f"driving_mask{mode.suffix}.mp4")
    for index in SOME_FRAMES:
        figure = (driving_mask(mode, index) == BLUE).all(axis=2)
        blue = masks[index][away_from_edges(figure)]
        assert blue[:, 2].min() >= 226
        assert blue[:, :2].max() <= 40
        ground = masks[index][away_from_edges(~figure)].astype(int)
        assert np.abs(ground - mode.driving_background).max() <= 24


def test_modes_have_opposite_backgrounds():
    animation, replacement = Mode.ANIMATION, Mode.REPLACEMENT
    assert animation.reference_background == replacement.driving_background == (255, 255, 255)
    assert animation.driving_background == replacement.reference_background == (0, 0, 0)


def test_reference_figure_fills_its_mask():
    inside = (reference_mask(Mode.ANIMATION) == BLUE).all(axis=2)
    changed = levels(reference_picture(), beach().picture()).max(axis=2) > 12
    assert changed[inside].mean() > 0.9
    rows = np.flatnonzero(inside.any(axis=1))
    assert 0.7 < (rows[-1] - rows[0]) / FRAME_SIZE[1] < 0.85


@pytest.mark.parametrize("index", SOME_FRAMES)
def test_puppet_fills_its_mask(index):
    scene = stage()
    inside = (driving_mask(Mode.ANIMATION, index) == BLUE).all(axis=2)
    changed = levels(driving_picture(scene, index), scene.picture()).max(axis=2) > 12
    assert changed[inside].mean() > 0.9
    # Outside there is nothing new but the shadow on the floor.
    above_floor = np.arange(FRAME_SIZE[1])[:, None] < GROUND - 12
    assert (changed & ~inside & above_floor).mean() < 0.01


def test_dance_is_smooth_and_stays_on_the_floor():
    size = Proportions()
    frames = [joints(driving_pose(index), size) for index in range(FRAME_COUNT)]
    ankles = np.array([[leg.tip for leg in body.legs] for body in frames])
    heights = GROUND - size.ankle - ankles[..., 1]
    assert heights.min() > -0.1, "a foot below the floor"
    assert heights.min(axis=1).max() < 0.1, "both feet in the air"
    wrists = np.array([[arm.tip for arm in body.arms] for body in frames])
    assert np.linalg.norm(np.diff(wrists, axis=0), axis=-1).max() < 48, "a hand jumps"
    assert np.ptp(wrists[..., 1]) > 100, "hardly a dance"
    assert abs(frames[0].pelvis[0] - CENTRE) < 1e-6
    np.testing.assert_allclose(wrists[0], wrists[-1], atol=1e-6, err_msg="the round does not close")


def test_broken_drawing_leaves_no_file(tmp_path):
    def frames():
        yield driving_mask(Mode.ANIMATION, 0)
        raise RuntimeError("no more paint")

    with pytest.raises(RuntimeError, match="paint"):
        write_video(tmp_path / "video.mp4", frames(), {"crf": "30"})
    assert list(tmp_path.iterdir()) == []
