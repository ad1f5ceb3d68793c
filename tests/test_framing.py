"""The reference where the driving person stands, on pictures drawn by hand: a person is a rectangle."""

import numpy as np
import pytest
import torch
from support import a_scene

from mlx_backend.interface.errors import RequestError
from mlx_backend.media.resize import MASK, PHOTO, fit
from mlx_backend.members.scail2.framing import LINE, Framing, fit_reference, people_boxes
from mlx_backend.members.scail2.masks import BLACK, PLANES, WHITE, driving_background, reference_background
from mlx_backend.members.scail2.scene import prepare_picture, prepare_scene

WIDTH, HEIGHT = 192, 128
MODES = ("animation", "replacement")
SKIN = np.array([0.9, 0.2, 0.1], np.float32)  # of the person in the photo; nothing else is as red
BODY = (150, 60, 200, 220)  # left, top, right, bottom in a photo of 320 x 240
TARGETS = [(20, 30, 60, 118), (100, 10, 180, 100), (80, 40, 90, 120)]


def mask_of(size, people, background=BLACK):
    """Paint boxes in identity colours: [1, H, W, 3]."""
    mask = np.full((1, size[1], size[0], 3), background, np.float32)
    for colour, (left, top, right, bottom) in people.items():
        mask[0, top:bottom, left:right] = PLANES[colour]
    return mask


def photo_of(size, box):
    """Paint a person into a scene whose green and blue are gradients: [1, H, W, 3]."""
    photo = np.zeros((1, size[1], size[0], 3), np.float32)
    photo[..., 1] = np.linspace(0.2, 0.8, size[0])
    photo[..., 2] = np.linspace(0.2, 0.8, size[1])[:, None]
    left, top, right, bottom = box
    photo[0, top:bottom, left:right] = SKIN
    return photo


def case(mode="animation", target=TARGETS[0], body=BODY, size=(320, 240), driving=(WIDTH, HEIGHT)):
    """Return reference, its mask and the driving mask of one blue person."""
    replacement = mode == "replacement"
    return (
        photo_of(size, body),
        mask_of(size, {"blue": body}, reference_background(replacement=replacement)),
        mask_of(driving, {"blue": target}, driving_background(replacement=replacement)),
    )


def fitted(pictures, listener, **framing):
    return fit_reference(*pictures, Framing(**{"width": WIDTH, "height": HEIGHT} | framing), listener)


def edges(box):
    return np.array([box.left, box.top, box.right, box.bottom])


def box_in(result, colour="blue"):
    return people_boxes(result.masks[0])[colour]


def is_skin(pictures):
    return (pictures[..., 0] > 0.45) & (pictures[..., 1] < 0.5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_person_fits_into_the_box_and_stands_on_its_bottom(target, mode, listener):
    result = fitted(case(mode, target), listener, mode=mode)
    left, top, right, bottom = target
    person_width, person_height = BODY[2] - BODY[0], BODY[3] - BODY[1]
    scale = min((right - left) / person_width, (bottom - top) / person_height)
    middle, half = (left + right) / 2, scale * person_width / 2
    expected = [middle - half, bottom - scale * person_height, middle + half, bottom]
    assert np.abs(edges(box_in(result)) - expected).max() <= 1  # whole pixels
    assert result.scale == pytest.approx(scale / max(WIDTH / 320, HEIGHT / 240))
    assert result.references.shape == result.masks.shape == result.preview.shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("target", TARGETS)
def test_match_height_ignores_the_width(target, listener):
    result = fitted(case(target=target), listener, method="match_height")
    scale = (target[3] - target[1]) / (BODY[3] - BODY[1])
    found, middle = box_in(result), (target[0] + target[2]) / 2
    assert np.abs(np.array([found.top, found.bottom]) - target[1::2]).max() <= 1
    assert abs((found.left + found.right) / 2 - middle) <= 1
    assert abs(found.width - scale * (BODY[2] - BODY[0])) <= 1
    assert result.scale == pytest.approx(scale / max(WIDTH / 320, HEIGHT / 240))


@pytest.mark.parametrize("method", ["fit", "match_height", "off"])
@pytest.mark.parametrize("mode", MODES)
def test_picture_and_mask_move_together_and_colours_stay_pure(mode, method, listener):
    result = fitted(case(mode), listener, mode=mode, method=method)
    background = reference_background(replacement=mode == "replacement")
    colours = {tuple(colour) for colour in result.masks.reshape(-1, 3).tolist()}
    assert colours == {tuple(map(float, PLANES["blue"])), background}
    left, top, right, bottom = (int(edge) for edge in edges(box_in(result)))
    assert is_skin(result.references[0, top + 2 : bottom - 2, left + 2 : right - 2]).all()
    around = is_skin(result.references[0])
    around[top - 2 : bottom + 2, left - 2 : right + 2] = False
    assert not around.any()


@pytest.mark.parametrize("method", ["fit", "match_height", "off"])
def test_in_replacement_all_around_the_person_is_black(method, listener):
    result = fitted(case("replacement"), listener, mode="replacement", method=method)
    person = (result.masks[0] == PLANES["blue"]).all(axis=-1)
    assert not result.references[0][~person].any()
    assert is_skin(result.references[0][person]).mean() > 0.9  # at the edges the photo is blended with its scene


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (WIDTH, HEIGHT)])
@pytest.mark.parametrize("method", ["fit", "match_height", "off"])
@pytest.mark.parametrize("mode", MODES)
def test_the_sampler_leaves_the_result_as_it_is(mode, method, size, listener):
    pictures = case(mode, body=(80, 30, 120, 110), size=size)
    result = fitted(pictures, listener, mode=mode, method=method)
    driving = np.full((1, HEIGHT, WIDTH, 3), 0.5, np.float32)
    scene = a_scene(
        references=result.references,
        reference_masks=result.masks,
        driving=driving,
        driving_mask=pictures[2],
        mode=mode,
        width=WIDTH,
        height=HEIGHT,
    )
    listener.warnings.clear()
    prepared = prepare_scene(scene, listener)
    assert prepared.size == (WIDTH, HEIGHT)
    assert np.array_equal(prepared.references, result.references)
    assert np.array_equal(prepared.reference_masks[0][0], result.masks[0])
    assert np.array_equal(prepare_picture(result.references, prepared, scene, listener), result.references[0])
    assert listener.warnings == []


@pytest.mark.parametrize("mode", MODES)
def test_off_is_what_the_sampler_does(mode, listener):
    reference, mask, driving_mask = case(mode)
    result = fitted((reference, mask, driving_mask), listener, mode=mode, method="off")
    scene = a_scene(
        references=reference,
        reference_masks=mask,
        driving=np.zeros_like(driving_mask),
        driving_mask=driving_mask,
        mode=mode,
        width=WIDTH,
        height=HEIGHT,
    )
    prepared = prepare_scene(scene, listener)
    assert np.array_equal(result.references, prepared.references.clip(0, 1))
    assert np.array_equal(result.masks[0], prepared.reference_masks[0][0])
    assert result.scale == 1


def test_the_driving_person_is_measured_as_the_sampler_crops_it(listener):
    """A driving video of 400 x 400 loses a third of its height."""
    pictures = case(target=(100, 120, 200, 300), driving=(400, 400))
    target = people_boxes(fit(pictures[2], WIDTH, HEIGHT, MASK)[0])["blue"]
    found = box_in(fitted(pictures, listener, method="match_height"))
    assert abs(found.top - target.top) <= 1
    assert abs(found.bottom - target.bottom) <= 1
    assert abs((found.left + found.right) - (target.left + target.right)) <= 2


def test_the_first_frame_that_shows_the_person_counts(listener):
    reference, mask, _ = case()
    empty, other = mask_of((WIDTH, HEIGHT), {}), mask_of((WIDTH, HEIGHT), {"red": (0, 0, 50, 50)})
    first, second = (mask_of((WIDTH, HEIGHT), {"blue": target}) for target in TARGETS[:2])
    driving = np.concatenate([empty, other, first, second])
    found = fitted((reference, mask, driving), listener)
    assert np.array_equal(found.masks, fitted((reference, mask, first), listener).masks)
    later = fitted((reference, mask, driving), listener, start_frame=3)
    assert np.array_equal(later.masks, fitted((reference, mask, second), listener).masks)
    assert not np.array_equal(later.masks, found.masks)


def test_several_people_are_matched_by_the_box_around_those_on_both_sides(listener):
    size = (320, 240)
    people = {"blue": (100, 80, 140, 200), "red": (180, 60, 220, 200), "green": (10, 10, 60, 60)}
    reference, mask = photo_of(size, people["blue"]), mask_of(size, people, WHITE)
    moved = {"blue": (40, 40, 60, 110), "red": (90, 30, 110, 110), "cyan": (150, 0, 190, 120)}
    result = fitted((reference, mask, mask_of((WIDTH, HEIGHT), moved)), listener)
    scale = min((110 - 40) / (220 - 100), (110 - 30) / (200 - 60))
    blue, red = box_in(result, "blue"), box_in(result, "red")
    assert abs((blue.left + red.right) / 2 - 75) <= 1
    assert abs(red.right - blue.left - scale * 120) <= 2
    assert abs(max(blue.bottom, red.bottom) - 110) <= 1
    assert result.scale == pytest.approx(scale / max(WIDTH / 320, HEIGHT / 240))


def test_specks_and_thin_lines_are_nobody():
    mask = mask_of((WIDTH, HEIGHT), {"blue": TARGETS[0]})
    before = people_boxes(mask[0])
    mask[0, 2, 2] = mask[0, 5:7, 100:150] = PLANES["blue"]
    mask[0, 0:2, 0:9] = PLANES["red"]
    assert people_boxes(mask[0]) == before
    assert tuple(edges(before["blue"])) == TARGETS[0]


def test_the_scene_goes_on_behind_the_edges_without_the_person(listener):
    """The person is cut off by the photo's left and bottom edges; both are continued as scene."""
    size, body = (160, 128), (0, 40, 60, 128)
    pictures = (photo_of(size, body), mask_of(size, {"blue": body}, WHITE), case(target=(70, 60, 90, 100))[2])
    result = fitted(pictures, listener)
    skin = is_skin(result.references[0])
    left, top, right, bottom = (int(edge) for edge in edges(box_in(result)))
    assert skin[top + 2 : bottom - 2, left + 2 : right - 2].all()
    skin[top - 2 : bottom, left : right + 2] = False
    assert not skin.any()
    assert top < bottom == 100
    for beyond in (result.references[0, bottom:], result.references[0, :, :left]):
        assert beyond[..., 0].max() < 0.02  # the scene has no red, not even blended into the photo's edge


def test_continued_edges_join_the_picture_and_stay_constant(listener):
    result = fitted(case(target=(80, 40, 90, 120)), listener)
    scale = 10 / (BODY[2] - BODY[0])  # the width decides
    right = round(85 + scale * (320 - (BODY[0] + BODY[2]) / 2))
    beyond = result.references[0, :, right:]
    assert beyond.shape[1] > 20
    assert np.array_equal(beyond, np.broadcast_to(result.references[0, :, right - 1 : right], beyond.shape))


def test_a_plain_mask_is_one_blue_person(listener):
    reference, mask, driving = case()
    plain = [(one == PLANES["blue"]).all(axis=-1).astype(np.float32) for one in (mask, driving)]
    result, expected = fitted((reference, *plain), listener), fitted((reference, mask, driving), listener)
    assert np.array_equal(result.references, expected.references)
    assert np.array_equal(result.masks, expected.masks)


def test_a_mask_of_another_size_is_laid_over_the_picture(listener):
    reference, mask, driving = case()
    half = mask[:, ::2, ::2]
    result, expected = fitted((reference, half, driving), listener), fitted((reference, mask, driving), listener)
    assert np.abs(edges(box_in(result)) - edges(box_in(expected))).max() <= 1
    assert any("160 x 120 pixels" in warning for warning in listener.warnings)


def test_extra_views_are_cropped_and_shaded_but_not_moved(listener):
    reference, mask, driving = case("replacement")
    views = np.concatenate([reference, np.flip(reference, axis=2), np.flip(reference, axis=1)])
    masks = np.concatenate([mask, np.flip(mask, axis=2)])
    result = fitted((views, masks, driving), listener, mode="replacement")
    alone = fitted((reference, mask, driving), listener, mode="replacement")
    assert np.array_equal(result.references[:1], alone.references)
    cropped, cropped_mask = fit(views[1:2], WIDTH, HEIGHT, PHOTO), fit(masks[1:], WIDTH, HEIGHT, MASK)
    shaded = cropped * cropped_mask.max(axis=-1, keepdims=True)
    assert np.array_equal(result.references[1:2], shaded.clip(0, 1))
    assert np.array_equal(result.references[2:], fit(views[2:], WIDTH, HEIGHT, PHOTO).clip(0, 1))  # it has no mask
    assert np.array_equal(result.masks[1:], cropped_mask)


def test_the_preview_shows_the_driving_persons_box(listener):
    target = TARGETS[0]
    result = fitted(case(target=target), listener)
    left, top, right, bottom = target
    line = np.zeros((HEIGHT, WIDTH), bool)
    line[top:bottom, left:right] = True
    line[top + 2 : bottom - 2, left + 2 : right - 2] = False
    assert np.allclose(result.preview[0][line], np.array(LINE) / 255)
    assert np.abs(result.preview[0] - result.references[0])[~line].max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("changes", "framing", "words"),
    [
        ({"target": (20, 30, 60, HEIGHT)}, {}, "driving person reaches the bottom edge"),
        ({"body": (150, 0, 200, 220)}, {}, "reference person reaches the top edge"),
        ({"body": (100, 100, 110, 116), "size": (200, 150)}, {}, "is enlarged 4.0 times"),
        ({"target": (80, 40, 90, 120)}, {}, "lies beyond the reference's edges"),
        ({"size": (240, 320)}, {}, "would have turned the size"),
        (
            {"target": (0, 20, 20, 120), "body": (60, 60, 300, 180)},
            {"method": "match_height"},
            "width of the reference",
        ),
    ],
)
def test_what_may_disappoint_is_told(changes, framing, words, listener):
    fitted(case(), listener)
    assert listener.warnings == []
    fitted(case(**changes), listener, **framing)
    assert any(words in warning for warning in listener.warnings), listener.warnings


def test_a_mask_of_the_other_mode_is_told(listener):
    fitted(case("replacement"), listener, mode="animation")
    assert any("reference mask has a black background" in warning for warning in listener.warnings)


def test_people_of_other_colours_are_refused(listener):
    reference, mask, _ = case()
    driving = mask_of((WIDTH, HEIGHT), {"red": TARGETS[0]})
    with pytest.raises(RequestError, match="shows blue and the driving mask red from frame 0 on"):
        fitted((reference, mask, driving), listener)
    with pytest.raises(RequestError, match="the driving mask nobody"):
        fitted((reference, mask, mask_of((WIDTH, HEIGHT), {})), listener)
    with pytest.raises(RequestError, match="The reference mask shows no person"):
        fitted((reference, mask_of((320, 240), {}, WHITE), driving), listener)


def test_settings_that_fit_nothing_are_refused(listener):
    with pytest.raises(RequestError, match="the driving mask has 1 frames: choose 0 to 0"):
        fitted(case(), listener, start_frame=1)
    with pytest.raises(RequestError, match="The width is 100 pixels"):
        Framing(width=100, height=64)
    with pytest.raises(RequestError, match="The framing method 'stretch' is unknown"):
        Framing(method="stretch", width=96, height=64)
    with pytest.raises(RequestError, match="The mode 'both' is unknown"):
        Framing(mode="both", width=96, height=64)


def test_the_node_gives_what_the_sampler_takes(nodes, listener):
    pictures = case()
    names = ("reference_image", "reference_mask", "driving_mask")
    chosen = {"mode": "animation", "method": "fit", "width": WIDTH, "height": HEIGHT, "start_frame": 0}
    inputs = dict(zip(names, map(torch.from_numpy, pictures), strict=True))
    image, mask, preview, scale = nodes["Scail2FitReference"](inputs | chosen)
    expected = fitted(pictures, listener)
    assert np.array_equal(image.numpy(), expected.references)
    assert np.array_equal(mask.numpy(), expected.masks)
    assert np.array_equal(preview.numpy(), expected.preview)
    assert scale == expected.scale
    assert {one.dtype for one in (image, mask, preview)} == {torch.float32}
