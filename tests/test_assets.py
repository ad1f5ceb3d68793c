"""The shipped samples are what `demo.draw_assets` draws, and fit together."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from demo import scenes
from demo.beach import beach
from demo.draw_assets import write_video
from demo.drawing import FRAME_SIZE
from demo.scenes import (
    BLACK,
    BLUE,
    CENTRE,
    FRAME_COUNT,
    FRAME_RATE,
    GROUND,
    LONG_COUNT,
    LONG_RATE,
    RED,
    WHITE,
    Mode,
    driving_mask,
    driving_picture,
    driving_pose,
    reference_mask,
    reference_picture,
)
from demo.skeleton import Proportions, joints
from demo.stage import stage

ASSETS = Path(__file__).parents[1] / "assets"

SOME_FRAMES = (0, 6, 13, 32)

CHROMA_ERROR = 4.0
"""Mean error allowed in a decoded frame (levels of 255).  Halving the resolution of the colours, as every
common video does, costs 2.4 by itself in this scene full of fine folds; compression adds 0.2."""

MASK_ERROR = 1.0
"""Mean error allowed in a decoded mask: flat colours survive, only the figure's edge is blurred."""


LARGEST = 300_000
"""Bytes: every user of the pack downloads all samples."""

MORE_PICTURES = {
    "reference_two.png": scenes.pair_picture,
    "reference_back.png": scenes.back_picture,
    "reference_close.png": scenes.close_picture,
}
MORE_MASKS = {
    "reference_two_mask.png": (scenes.pair_mask, {BLUE, RED, WHITE}),
    "reference_back_mask.png": (scenes.back_mask, {BLUE, WHITE}),
    "reference_close_mask.png": (scenes.close_mask, {BLUE, WHITE}),
    "reference_person.png": (scenes.person_mask, {WHITE, BLACK}),
}
MORE_MASK_CLIPS = {
    "driving_two_mask.mp4": (scenes.pair_driving_mask, {BLUE, RED, BLACK}),
    "driving_person.mp4": (scenes.driving_person_mask, {WHITE, BLACK}),
}


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


def test_every_sample_is_small():
    sizes = {path.name: path.stat().st_size for path in ASSETS.iterdir() if path.suffix in (".png", ".mp4")}
    assert {name for name, size in sizes.items() if size > LARGEST} == set()


@pytest.mark.parametrize("name", MORE_PICTURES)
def test_more_references_are_what_is_drawn(name):
    assert levels(shipped_picture(name), MORE_PICTURES[name]()).mean() < 0.5


@pytest.mark.parametrize("name", MORE_MASKS)
def test_more_reference_masks_are_what_is_drawn(name):
    draw, allowed = MORE_MASKS[name]
    mask = shipped_picture(name)
    assert (levels(mask, draw()).max(axis=2) > 0).mean() < 1e-3
    assert {tuple(colour) for colour in np.unique(mask.reshape(-1, 3), axis=0).tolist()} == allowed


def test_the_close_mask_fits_the_close_picture():
    """The window of the picture and that of the outlines are cut by different code."""
    inside = (scenes.close_mask() == BLUE).all(axis=2)
    empty = beach().close_up(scenes.CLOSE_UP_CORNER, scenes.CLOSE_UP)
    changed = levels(scenes.close_picture(), empty).max(axis=2) > 12
    assert changed[inside].mean() > 0.9
    assert (changed & ~inside)[: FRAME_SIZE[1] // 2].mean() < 0.01  # below lies the shadow on the beach


def test_the_two_stand_blue_left_and_red_right():
    mask = scenes.pair_mask()
    blue, red = ((mask == colour).all(axis=2) for colour in (BLUE, RED))
    assert np.flatnonzero(blue.any(axis=0)).max() < np.flatnonzero(red.any(axis=0)).min()
    for index in range(FRAME_COUNT):
        mask = scenes.pair_driving_mask(index)
        blue, red = (np.flatnonzero((mask == colour).all(axis=2).any(axis=0)) for colour in (BLUE, RED))
        assert blue.max() < red.min(), f"the dancers touch in frame {index}"


def test_two_dancers_are_what_is_drawn():
    video, scene = decoded("driving_two.mp4"), stage()
    assert video.shape == (FRAME_COUNT, FRAME_SIZE[1], FRAME_SIZE[0], 3)
    for index in SOME_FRAMES:
        assert levels(video[index], scenes.pair_driving_picture(scene, index)).mean() < CHROMA_ERROR


@pytest.mark.parametrize("name", MORE_MASK_CLIPS)
def test_more_driving_masks_are_pure(name):
    draw, allowed = MORE_MASK_CLIPS[name]
    masks = decoded(name)
    assert masks.shape == (FRAME_COUNT, FRAME_SIZE[1], FRAME_SIZE[0], 3)
    for index in SOME_FRAMES:
        drawn = draw(index)
        assert {tuple(colour) for colour in np.unique(drawn.reshape(-1, 3), axis=0).tolist()} == allowed
        assert levels(masks[index], drawn).mean() < MASK_ERROR
        for colour in allowed:
            pixels = masks[index][away_from_edges((drawn == colour).all(axis=2))]
            assert pixels[:, np.array(colour) == 255].min(initial=255) >= 226
            assert pixels[:, np.array(colour) == 0].max(initial=0) <= 40


def test_the_long_clip_and_its_mask_go_together():
    video, masks, scene = decoded("driving_long.mp4"), decoded("driving_long_mask.mp4"), stage()
    assert video.shape == masks.shape == (LONG_COUNT, FRAME_SIZE[1], FRAME_SIZE[0], 3)
    for index in (0, 31, 77, LONG_COUNT - 1):
        assert levels(video[index], driving_picture(scene, index, LONG_RATE)).mean() < CHROMA_ERROR
        drawn = driving_mask(Mode.ANIMATION, index, LONG_RATE)
        assert levels(masks[index], drawn).mean() < MASK_ERROR
        blue = masks[index][away_from_edges((drawn == BLUE).all(axis=2))]
        assert blue[:, 2].min() >= 226
        assert blue[:, :2].max() <= 40
    at_16 = LONG_COUNT * FRAME_RATE / LONG_RATE
    assert at_16 > 81, "one segment would do"


def test_the_long_clip_has_sound_of_its_length():
    with av.open(ASSETS / "driving_long.mp4") as container:
        assert container.streams.video[0].average_rate == LONG_RATE
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    # AAC works in frames of 1024 samples and adds one of them before the sound.
    assert abs(len(samples) - rate * LONG_COUNT / LONG_RATE) <= 2048
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.5, "silence or noise"
