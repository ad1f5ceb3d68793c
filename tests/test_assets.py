"""The shipped samples are what `tools.draw_assets` draws, and fit together."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support import Recorder, a_scene

from mlx_backend.members.scail2.inspection import inspect_people
from mlx_backend.members.scail2.scene import prepare_scene
from tools import draw_assets
from tools.draw_assets import is_mask, person, write_video
from tools.samples import FRAME_COUNT, FRAME_RATE, LONG_COUNT, LONG_RATE, SIZE, pair, prompt, solo, times
from world.puppets import PARTS
from world.scenes import MODES, WORDS
from world.shapes import seen
from world.stage import IDENTITIES

ASSETS = Path(__file__).parents[1] / "assets"

SOME_FRAMES = (0, 13, 32)
SOME_LONG_FRAMES = (0, 31, 77, LONG_COUNT - 1)

PICTURE_ERROR = 2.0
"""Mean error allowed in a decoded frame (levels of 255): 1.7 to 1.9 are measured, from colours at half the resolution
in fewer levels, as every common video has them, and from compression. The next frame of the dance is at 3.6."""

MASK_ERROR = 1.0
"""Mean error allowed in a decoded mask: flat colours survive, only the figure's edge is blurred."""

LARGEST = 300_000
"""Bytes: every user of the pack downloads all samples."""

BLACK, WHITE, BLUE, RED = (0, 0, 0), (255, 255, 255), IDENTITIES["blue"], IDENTITIES["red"]

PICTURES = ("reference.png", "reference_other.png", "reference_two.png")
MASKS = {
    "reference_mask.png": {BLUE, WHITE},
    "reference_mask_replacement.png": {BLUE, BLACK},
    "reference_other_mask.png": {BLUE, BLACK},
    "reference_two_mask.png": {BLUE, RED, WHITE},
    "reference_person.png": {WHITE, BLACK},
}
CLIPS = ("driving.mp4", "driving_two.mp4")
MASK_CLIPS = {
    "driving_mask.mp4": {BLUE, BLACK},
    "driving_mask_replacement.mp4": {BLUE, WHITE},
    "driving_person.mp4": {WHITE, BLACK},
    "driving_two_mask.mp4": {BLUE, RED, BLACK},
}
LONG_CLIPS = ("driving_long.mp4", "driving_long_mask.mp4")


@cache
def decoded(name: str) -> np.ndarray:
    """All frames (frames, height, width, 3) of a shipped video, as a user's reader decodes them."""
    with av.open(ASSETS / name) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shipped_picture(name: str) -> np.ndarray:
    with Image.open(ASSETS / name) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def pictures():
    return draw_assets.pictures()


@pytest.fixture(scope="module")
def clips():
    """SOME_FRAMES of the short clips, as drawn."""
    return draw_assets.clips(times()[list(SOME_FRAMES)])


@pytest.fixture(scope="module")
def long_clips():
    """SOME_LONG_FRAMES of the long clip and its mask, as drawn."""
    return draw_assets.long_clips(times(LONG_COUNT, LONG_RATE)[list(SOME_LONG_FRAMES)])


def levels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Absolute differences in levels."""
    return np.abs(left.astype(np.int16) - right.astype(np.int16))


def colours(mask: np.ndarray) -> set[tuple[int, ...]]:
    packed = mask.reshape(-1, 3).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in np.unique(packed)}


def away_from_edges(inside: np.ndarray, pixels: int = 2) -> np.ndarray:
    """The True pixels (height, width) that have none but True ones within some pixels of them."""
    padded = np.pad(inside, pixels, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (2 * pixels + 1,) * 2).all(axis=(2, 3))


def rim(frames: np.ndarray) -> np.ndarray:
    """The outermost pixels of square frames (frames, size, size)."""
    return np.concatenate([frames[:, (0, -1)], frames[:, :, (0, -1)].swapaxes(1, 2)])


def check_pure(mask: np.ndarray, drawn: np.ndarray) -> None:
    """Check a decoded mask: each channel is on or off, by the thresholds that read it, but at the figure's edge."""
    assert levels(mask, drawn).mean() < MASK_ERROR
    assert ((mask > 225) == (drawn > 225)).all(axis=2).mean() > 0.99
    for colour in colours(drawn):
        pixels = mask[away_from_edges((drawn == colour).all(axis=2))]
        assert pixels[:, np.array(colour) == 255].min(initial=255) >= 226
        assert pixels[:, np.array(colour) == 0].max(initial=0) <= 40


def test_every_sample_is_drawn_and_small(pictures, clips, long_clips):
    samples = {path.name: path.stat().st_size for path in ASSETS.iterdir() if path.suffix in (".png", ".mp4")}
    assert samples.keys() == {*pictures, *clips, *long_clips}
    assert samples.keys() == {*PICTURES, *MASKS, *CLIPS, *MASK_CLIPS, *LONG_CLIPS}
    assert {name for name, size in samples.items() if size > LARGEST} == set()
    assert {name for name in samples if is_mask(name)} == {*MASKS, *MASK_CLIPS, "driving_long_mask.mp4"}


@pytest.mark.parametrize("name", PICTURES)
def test_references_are_what_is_drawn(name, pictures):
    shipped = shipped_picture(name)
    assert shipped.shape == (SIZE, SIZE, 3)
    # PNG is lossless; a level or two is left to other versions of Pillow's rasteriser and numpy's arithmetic.
    assert levels(shipped, pictures[name]).mean() < 0.5


@pytest.mark.parametrize("name", MASKS)
def test_reference_masks_are_what_is_drawn(name, pictures):
    mask = shipped_picture(name)
    assert (levels(mask, pictures[name]).max(axis=2) > 0).mean() < 1e-3
    assert colours(mask) == MASKS[name]


@pytest.mark.parametrize("name", CLIPS)
def test_driving_videos_are_what_is_drawn(name, clips):
    video = decoded(name)
    assert video.shape == (FRAME_COUNT, SIZE, SIZE, 3)
    for index, drawn in zip(SOME_FRAMES, clips[name], strict=True):
        assert levels(video[index], drawn).mean() < PICTURE_ERROR


@pytest.mark.parametrize("name", MASK_CLIPS)
def test_driving_masks_are_pure(name, clips):
    masks = decoded(name)
    assert masks.shape == (FRAME_COUNT, SIZE, SIZE, 3)
    for index, drawn in zip(SOME_FRAMES, clips[name], strict=True):
        assert colours(drawn) == MASK_CLIPS[name]
        check_pure(masks[index], drawn)


@pytest.mark.parametrize("name", [*CLIPS, *MASK_CLIPS, *LONG_CLIPS])
def test_videos_play_at_the_stated_rate(name):
    with av.open(ASSETS / name) as container:
        assert container.streams.video[0].average_rate == (LONG_RATE if name in LONG_CLIPS else FRAME_RATE)


def test_the_long_clip_and_its_mask_go_together(long_clips):
    video, masks = (decoded(name) for name in LONG_CLIPS)
    assert video.shape == masks.shape == (LONG_COUNT, SIZE, SIZE, 3)
    for index, picture, mask in zip(SOME_LONG_FRAMES, *(long_clips[name] for name in LONG_CLIPS), strict=True):
        assert levels(video[index], picture).mean() < PICTURE_ERROR
        check_pure(masks[index], mask)
    assert LONG_COUNT * FRAME_RATE / LONG_RATE > 81, "one segment would do"


def test_the_long_clip_has_sound_of_its_length():
    with av.open(ASSETS / "driving_long.mp4") as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    # AAC works in frames of 1024 samples and adds one of them before the sound.
    assert abs(len(samples) - rate * LONG_COUNT / LONG_RATE) <= 2048
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.5, "silence or noise"


@pytest.mark.parametrize("group", [solo(), pair()], ids=["solo", "pair"])
def test_figures_fill_their_masks(group):
    """What a picture adds to its empty scene lies within the mask, and fills it."""
    name = "_two" if len(group.dances) == 2 else ""
    pairs = [
        (1, shipped_picture(f"reference{name}.png"), shipped_picture(f"reference{name}_mask.png") != WHITE),
        *((0, decoded(f"driving{name}.mp4")[i], decoded(f"driving{name}_mask.mp4")[i] > 127) for i in SOME_FRAMES),
    ]
    for scene, picture, inside in pairs:
        inside = inside.any(axis=2)
        changed = levels(picture, np.asarray(seen(group.backdrops[scene].image(SIZE)))).max(axis=2) > 24
        assert changed[away_from_edges(inside)].mean() > 0.99
        assert changed[away_from_edges(~inside, 4)].mean() < 0.002
        assert 0.08 < inside.mean() < 0.4


def test_masks_on_both_sides_of_a_mode_have_opposite_backgrounds():
    for mode, around in zip(MODES, (WHITE, BLACK), strict=True):
        end = draw_assets.suffix(mode)
        assert tuple(shipped_picture(f"reference_mask{end}.png")[0, 0]) == around
        assert levels(decoded(f"driving_mask{end}.mp4")[0, 0, 0], np.array(around)).min() >= 231


@pytest.mark.parametrize(
    ("references", "driving"),
    [(("reference", "reference_other"), "driving"), (("reference_two",), "driving_two")],
    ids=["several references", "two people"],
)
def test_samples_raise_no_warning(references, driving):
    """The extra reference's mask has the background of the other mode, as it is cut out; the two do not cross."""
    recorder = Recorder()
    scene = a_scene(
        references=np.stack([shipped_picture(f"{name}.png") for name in references]) / np.float32(255),
        reference_masks=np.stack([shipped_picture(f"{name}_mask.png") for name in references]) / np.float32(255),
        driving=decoded(f"{driving}.mp4") / np.float32(255),
        driving_mask=decoded(f"{driving}_mask.mp4") / np.float32(255),
        width=96,
        height=96,
    )
    inspect_people(prepare_scene(scene, recorder), 0, recorder)
    assert recorder.warnings == []


def test_the_plain_masks_show_the_same_figure():
    assert np.array_equal(person(shipped_picture("reference_mask.png")), shipped_picture("reference_person.png"))


@pytest.mark.parametrize("group", [solo(), pair()], ids=["solo", "pair"])
def test_who_drives_differs_from_whom_it_drives(group):
    for driving, shown in zip(*(cast.puppets for cast in group.casts), strict=True):
        for part in PARTS:
            assert np.linalg.norm(np.subtract(driving.colours[part], shown.colours[part])) > 75, part
    solo_hats = [cast.puppets[0].hat for cast in solo().casts]
    assert solo_hats[0] != solo_hats[1]


def test_the_dancer_is_whole_in_every_frame():
    """Small pictures do: a part that leaves the picture is at its rim."""
    group, size = solo(), 64
    shot = group.clip(0, 0, times(LONG_COUNT, LONG_RATE), size)
    for labels in (shot.labels, *(group.picture(1, 1, view, size).labels for view in (0, 1))):
        assert not rim(labels).any()
    hands = np.array([np.argwhere(frame).mean(axis=0) for frame in shot.shows(0, "arms")])
    assert np.ptp(hands[: FRAME_COUNT * 3 // 2], axis=0).max() > 0.1 * size, "hardly a dance"


def test_the_two_stand_blue_left_and_red_right_and_are_well_seen():
    group, size = pair(), 64
    assert group.identities == ("blue", "red")
    for shot in (group.picture(1, 1, 0, size), group.clip(0, 0, times(), size)):
        people = shot.puppets()
        for frame in people:
            blue, red = (np.argwhere(frame == number)[:, 1] for number in (1, 2))
            assert blue.mean() + 0.15 * size < red.mean()
        for number in range(2):
            sizes = (people == number + 1).sum(axis=(1, 2))
            assert sizes.min() > 0.75 * sizes.max(), "hidden or cut"
            assert not any(rim(shot.shows(number, part)).any() for part in ("shirt", "head", "hat"))


@pytest.mark.parametrize("mode", MODES)
def test_prompts_are_made_of_words_that_the_small_model_knows(mode):
    for group in (solo(), pair()):
        assert set(prompt(group, mode).split()) <= set(WORDS)
    assert ("pale" in prompt(solo(), mode)) == (mode == "animation")


def test_broken_drawing_leaves_no_file(tmp_path):
    def frames():
        yield np.zeros((SIZE, SIZE, 3), np.uint8)
        raise RuntimeError("no more paint")

    with pytest.raises(RuntimeError, match="paint"):
        write_video(tmp_path / "video.mp4", frames(), {"crf": "30"})
    assert list(tmp_path.iterdir()) == []
