"""Coloured masks of people: expected pixels written by hand. test_people_core.py compares with ComfyUI's own node."""

import numpy as np
import pytest
import torch
from support import Recorder, a_scene

from mlx_backend.interface.errors import RequestError
from mlx_backend.members.scail2.masks import BLACK, WHITE
from mlx_backend.members.scail2.people import Painter, tell
from mlx_backend.members.scail2.scene import prepare_scene

LETTERS = {
    "k": (0, 0, 0),
    "w": (1, 1, 1),
    "b": (0, 0, 1),
    "r": (1, 0, 0),
    "g": (0, 1, 0),
    "m": (1, 0, 1),
    "c": (0, 1, 1),
    "y": (1, 1, 0),
}
NAMES = {value: key for key, value in LETTERS.items()}


def drawn(*rows):
    """Return masks [objects, F, H, W]: per object a list of frames, each of rows of '.' and '#'."""
    return np.array([[[[c == "#" for c in row] for row in frame.split()] for frame in frames] for frames in rows])


def letters(clip):
    """Return a coloured clip as text, a frame to a string, rows apart by blanks; every pixel must be pure."""
    return [" ".join("".join(NAMES[tuple(int(v) for v in px)] for px in row) for row in frame) for frame in clip]


def painter(order="none", numbers="", listener=None):
    return Painter.of(order, numbers, listener or Recorder())


def painted(masks, order="none", numbers="", background=BLACK, size=None, listener=None):
    return painter(order, numbers, listener).people("mask", masks, size or masks.shape[2:], background).clip


def packed(masks):
    """Pack masks [objects, F, H, W] as SAM3 does."""
    return np.packbits(masks.swapaxes(0, 1), axis=-1, bitorder="little")


# Three people: 0 right and small, 1 left and large, 2 in the middle but only from the second frame.
THREE = drawn(
    ["......#. ........", "......#. ........"],
    ["##...... ##......", "##...... ##......"],
    ["........ ........", "...##... ...##..."],
)


@pytest.mark.parametrize(
    ("order", "numbers", "expected"),
    [
        ("none", "", ["rrkkkkbk rrkkkkkk", "rrkggkbk rrkggkkk"]),
        ("left_to_right", "", ["bbkkkkrk bbkkkkkk", "bbkggkrk bbkggkkk"]),
        ("area", "", ["bbkkkkrk bbkkkkkk", "bbkggkrk bbkggkkk"]),
        ("left_to_right", "0,2", ["bbkkkkkk bbkkkkkk", "bbkrrkkk bbkrrkkk"]),
        ("left_to_right", " 2 , 0 ,", ["rrkkkkkk rrkkkkkk", "rrkbbkkk rrkbbkkk"]),
        ("none", "0", ["kkkkkkbk kkkkkkkk", "kkkkkkbk kkkkkkkk"]),
    ],
)
def test_order_and_selection_give_the_colours(order, numbers, expected):
    clip = painted(THREE, order, numbers)
    assert clip.dtype == np.float32
    assert letters(clip) == expected


def test_the_earlier_frame_comes_before_the_side_and_the_area():
    late_left = drawn(["....", "#..."], ["...#", "...#"])
    assert letters(painted(late_left, "left_to_right")) == ["kkkb", "rkkb"]
    late_large = drawn(["....", "##.."], ["...#", "...#"])
    assert letters(painted(late_large, "area")) == ["kkkb", "rrkb"]
    assert letters(painted(late_large, "none")) == ["kkkr", "bbkr"]


def test_side_and_area_are_those_of_the_first_appearance():
    crossing = drawn(["...#", "#..."], ["#...", "...#"])
    assert letters(painted(crossing, "left_to_right")) == ["bkkr", "rkkb"]
    growing = drawn(["...#", ".###"], ["##..", "#..."])
    assert letters(painted(growing, "area")) == ["bbkr", "brrr"]


def test_equals_keep_their_order_and_the_absent_come_last():
    twins = drawn(["#..#"], [".##."], ["...."])
    assert letters(painted(twins, "left_to_right")) == ["brrb"]
    assert letters(painted(twins, "area")) == ["brrb"]
    absent_first = drawn(["....", "...."], ["...#", "...#"])
    assert letters(painted(absent_first, "left_to_right")) == ["kkkb", "kkkb"]
    assert letters(painted(absent_first, "none")) == ["kkkr", "kkkr"]


def test_where_people_overlap_the_first_colour_is_seen():
    overlap = drawn(["###."], [".###"])
    assert letters(painted(overlap)) == ["bbbr"]
    assert letters(painted(overlap, "none", "1,0")) == ["rbbb"]


def test_a_frame_without_people_is_background():
    masks = drawn(["#.", "..", ".#"])
    assert letters(painted(masks, background=WHITE)) == ["bw", "ww", "wb"]


def test_floats_are_on_above_one_half():
    assert letters(painted(np.array([[[[0.5, 0.51, 0.0, 1.0]]]]))) == ["kbkb"]


def test_masks_are_scaled_to_the_size_by_the_nearest_pixel():
    """Each pixel takes floor(position x source / target), as torch's 'nearest'."""
    assert letters(painted(drawn(["#. .#"]), size=(3, 5))) == ["bbbkk bbbkk kkkbb"]
    assert letters(painted(drawn(["#.#.##"]), size=(1, 4))) == ["bkkb"]  # pixels 0, 1, 3 and 4


def test_six_people_get_the_palette_and_a_seventh_the_first_colour_again(listener):
    seven = np.eye(7, dtype=bool)[:, None, None]
    assert letters(painted(seven, listener=listener)) == ["brgmcyb"]
    assert len(listener.warnings) == 1
    assert "shows 7 people" in listener.warnings[0]
    listener.warnings.clear()
    assert letters(painted(seven, numbers="0,1,2,3,4,6", listener=listener)) == ["brgmcky"]
    assert listener.warnings == []


def test_numbers_of_nobody_are_told(listener):
    assert letters(painted(drawn(["#."], [".#"]), numbers="1,5", listener=listener)) == ["kb"]
    assert listener.warnings == ["The selection names 5, but the mask has only 0, 1: what is missing stays unpainted."]


@pytest.mark.parametrize("numbers", ["a", "0;1", "-1", "0,1.5", ",", "²"])
def test_a_selection_that_is_no_list_of_numbers_is_refused(numbers):
    with pytest.raises(RequestError, match="must be numbers from 0 with commas"):
        painter(numbers=numbers)
    with pytest.raises(RequestError, match="can be none, left_to_right, area"):
        painter(order="random")


def test_a_track_is_unpacked_lowest_bit_first():
    bits = np.array([[[[0b00000001, 0b10000000]]]], np.uint8)
    assert letters(painter().track("track", bits, 1, (1, 16), WHITE).clip) == ["b" + 14 * "w" + "b"]
    assert letters(painter().track("track", packed(THREE), 2, (2, 8), BLACK).clip) == letters(painted(THREE))


def test_a_track_of_nobody_is_background():
    assert letters(painter().track("track", None, 2, (1, 3), WHITE).clip) == ["www", "www"]
    empty = np.zeros((2, 0, 1, 1), np.uint8)
    assert letters(painter("area").track("track", empty, 9, (1, 3), BLACK).clip) == ["kkk", "kkk"]


@pytest.mark.parametrize(
    ("broken", "frames", "size", "words"),
    [
        (np.zeros((1, 1, 2), np.uint8), 1, (2, 8), "uint8 of shape"),
        (np.zeros((1, 1, 2, 8), np.float32), 1, (2, 8), "float32 of shape"),
        (np.zeros((0, 1, 2, 1), np.uint8), 1, (2, 8), "has 0 frames"),
        (np.zeros((1, 1, 2, 1), np.uint8), 1, (0, 8), "8 x 0 pixels"),
        (None, 0, (2, 8), "has 0 frames"),
    ],
)
def test_a_broken_track_is_refused(broken, frames, size, words):
    with pytest.raises(RequestError, match=words):
        painter().track("driving track", broken, frames, size, BLACK)


def test_a_mask_of_one_person_is_blue_whoever_is_selected(listener):
    mask = np.array([[[0.0, 1.0]], [[1.0, 0.4]]], np.float32)
    assert letters(painter("area", "1", listener).batch("mask", mask, 1, WHITE).clip) == ["wb", "bw"]
    assert listener.warnings == []


def test_a_mask_of_two_people_holds_one_after_the_other():
    mask = drawn(["..#", "..#"], ["#..", ".#."]).reshape(4, 1, 3).astype(np.float32)
    assert letters(painter().batch("mask", mask, 2, BLACK).clip) == ["rkb", "krb"]
    assert letters(painter("left_to_right", "0").batch("mask", mask, 2, BLACK).clip) == ["bkk", "kbk"]
    with pytest.raises(RequestError, match="MASK of 4 pictures, which 3 people cannot share"):
        painter().batch("mask", mask, 3, BLACK)
    with pytest.raises(RequestError, match="NaN"):
        painter().batch("mask", np.full((1, 2, 2), np.nan, np.float32), 1, BLACK)


def test_coloured_pictures_are_snapped_to_the_nearest_colour():
    pixels = {
        (0.0, 0.0, 0.9): "b",
        (0.1, 0.2, 0.6): "b",
        (1.0, 0.4, 0.1): "r",
        (0.3, 0.51, 0.0): "g",
        (0.9, 0.2, 0.7): "m",
        (0.2, 0.8, 0.8): "c",
        (1.0, 0.65, 0.0): "y",
        (0.5, 0.5, 0.5): "w",  # background, as are the next two
        (0.9, 0.8, 0.95): "w",
        (0.1, 0.0, 0.2): "w",
    }
    row = np.array([[list(pixels)]], np.float32)
    assert letters(painter().pictures("mask", row, WHITE).clip) == ["".join(pixels.values())]
    for colour, letter in pixels.items():  # nearest, by distance
        corners = [np.array(corner) for name, corner in LETTERS.items() if name == letter or letter == "w"]
        distance = [np.linalg.norm(np.array(colour) - np.array(corner)) for corner in LETTERS.values()]
        nearest = min(np.linalg.norm(np.array(colour) - corner) for corner in corners)
        assert nearest == pytest.approx(min(distance))


def test_coloured_pictures_keep_their_colours_unless_people_are_selected(listener):
    picture = np.array([[[LETTERS[c] for c in "rwgbk"]], [[LETTERS[c] for c in "kkrgy"]]], np.float32)
    assert letters(painter("left_to_right").pictures("mask", picture, BLACK).clip) == ["rkgbk", "kkrgy"]
    assert letters(painter("area", "1,2").pictures("mask", picture, WHITE).clip) == ["bwrww", "wwbrw"]
    assert letters(painter("none", "5,3", listener).pictures("mask", picture, WHITE).clip) == ["wwwww", "wwwwb"]
    assert listener.warnings == [
        "The selection names 3, but the mask has only 0, 1, 2, 5: what is missing stays unpainted."
    ]


def test_a_photo_instead_of_a_mask_is_told(listener):
    photo = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    painter(listener=listener).pictures("driving mask", photo, BLACK)
    assert "of the pixels have no pure colour" in listener.warnings[0]


def test_the_masks_say_who_is_in_them_and_what_does_not_fit(listener):
    driving = painter().people("driving mask", THREE, (2, 8), BLACK)
    assert str(driving) == "2 frames of 8 x 2: blue in all, red in all, green in 1 (first in frame 1)"
    reference = painter().people("reference mask", THREE[:1, :1], (2, 8), WHITE)
    assert str(reference) == "1 frame of 8 x 2: blue"
    tell(driving, reference, listener)
    assert len(listener.warnings) == 1
    assert listener.warnings[0].startswith("Only the driving mask shows red, green:")
    tell(driving, painter(numbers="9").people("reference mask", THREE, (2, 8), WHITE), listener)
    assert listener.warnings[-1].startswith("The reference mask shows nobody")


def node(nodes, **changes):
    """Run the node and return both masks as text, or as arrays where they are large."""
    inputs = {"mode": "animation", "order": "none", "people": "", "people_per_mask": 1}
    return [output.numpy() for output in nodes["Scail2ColoredMask"](inputs | changes)]


def track(masks, size):
    bits = torch.from_numpy(packed(masks))
    return {"packed_masks": bits, "orig_size": size, "n_frames": masks.shape[1], "scores": []}


@pytest.mark.parametrize(("mode", "around"), [("animation", "kw"), ("replacement", "wk")])
def test_the_node_gives_both_sides_their_backgrounds(nodes, mode, around):
    picture = torch.tensor([[[LETTERS["b"], LETTERS["k"], LETTERS["w"]]]], dtype=torch.float32)
    for reference in (picture, torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[1.0, 0.0, 0.0]])):
        driving, other, preview = node(nodes, driving=track(THREE, (2, 8)), reference=reference, mode=mode)
        assert letters(driving)[0] == "rrkkkkbk rrkkkkkk".replace("k", around[0])
        assert letters(other) == ["b" + 2 * around[1]]
        assert preview.shape[0] == 1
        assert preview.min() >= 0 and preview.max() <= 1
    _, alone, _ = node(nodes, driving=torch.ones(3, 2, 4), mode=mode)
    assert letters(alone) == [" ".join(2 * [4 * around[1]])]


def test_the_node_refuses_a_dictionary_that_is_no_track(nodes):
    with pytest.raises(Exception, match="The driving track lacks orig_size"):
        node(nodes, driving={"packed_masks": None})


@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_the_sampler_takes_the_masks_without_a_warning(nodes, mode):
    """What the node gives is what the sampler's own checks want."""
    people = np.zeros((2, 5, 64, 96), bool)
    people[0, :, 16:48, 8:32] = people[1, :, 16:48, 56:88] = True
    driving, reference, _ = node(
        nodes, driving=track(people, (64, 96)), reference=track(people[:, :1], (64, 96)), mode=mode
    )
    listener = Recorder()
    frames = np.full((5, 64, 96, 3), 0.5, np.float32)
    scene = a_scene(
        references=frames[:1],
        driving=frames,
        reference_masks=reference,
        driving_mask=driving,
        mode=mode,
        width=96,
        height=64,
    )
    prepare_scene(scene, listener)
    assert listener.warnings == []
