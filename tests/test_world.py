"""The world of puppets: deterministic, exact masks, targets that are what they say."""

import numpy as np
import pytest

from mlx_backend.members.scail2.masks import IDENTITIES as NAMES
from mlx_backend.members.scail2.masks import PLANES, driving_background, reference_background
from world.scenes import MODES, WORDS, Example, Group, blacked
from world.shapes import seen
from world.stage import IDENTITIES

SIZE = 96
TIMES = np.arange(5.0)


def example(seed, mode="animation", people=2, extras=0, swap=False):
    group = Group.random(seed, people)
    return Example.of(group.swapped() if swap else group, mode, TIMES, SIZE, extras)


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_means_the_same_pictures_every_time(mode):
    first, second, other = example(3, mode), example(3, mode), example(4, mode)
    for name in ("references", "reference_masks", "driving", "driving_mask"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert np.array_equal(first.target.pictures, second.target.pictures)
    assert not np.array_equal(first.driving, other.driving)


def test_the_identity_colours_are_those_that_the_model_knows():
    assert tuple(IDENTITIES) == NAMES
    for name, colour in IDENTITIES.items():
        assert tuple(c / 255 for c in colour) == PLANES[name]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("people", [1, 2, 3])
def test_masks_have_the_colours_of_the_people_and_the_background_of_the_mode(mode, people):
    made = example(people, mode, people)
    replacement = mode == "replacement"
    wanted = {IDENTITIES[name] for name in made.group.identities}
    for mask, around in (
        (made.driving_mask, driving_background(replacement=replacement)),
        (made.reference_masks, reference_background(replacement=replacement)),
    ):
        found = {tuple(int(c) for c in colour) for colour in np.unique(mask.reshape(-1, 3), axis=0)}
        assert found == wanted | {tuple(int(255 * c) for c in around)}


def test_outside_the_mask_the_picture_is_the_backdrop():
    """The mask is exact: no pixel outside it, but for soft rims, differs from the empty scene."""
    group = Group.random(5, 2)
    shot = group.clip(1, 1, TIMES, SIZE)
    empty = np.asarray(seen(group.backdrops[1].image(SIZE)))
    person = shot.labels > 0
    rim = person.copy()
    for axis in (1, 2):
        rim |= np.logical_or.reduce([np.roll(rim, step, axis) for step in range(-4, 5)])
    same = (shot.pictures == empty).all(axis=-1)
    assert same[~rim].mean() > 0.999  # the middle of a pixel decides: the point of a hat may miss it
    assert same[person].mean() < 0.01
    assert 0.05 < person.mean() < 0.6


def test_the_target_is_the_reference_cast_with_the_driving_motion():
    made = example(6, "animation", 1)
    limb = made.target.shows(0, "shirt")
    assert tuple(np.median(made.target.pictures[limb], axis=0)) == made.group.casts[1].puppets[0].colours["shirt"]
    driving = made.group.clip(0, 0, TIMES, SIZE)

    def middle(shot):
        return np.array([np.argwhere(frame).mean(axis=0) for frame in shot.puppets() == 1])

    # Same dance, other proportions: the figures stay near each other, and move as each other.
    assert np.abs(middle(driving) - middle(made.target)).max() < 0.06 * SIZE


def test_the_modes_differ_in_whose_scene_is_kept():
    animated, replaced = example(7, "animation"), example(7, "replacement")
    behind = ~(animated.target.labels > 0)
    assert np.array_equal(animated.target.labels, replaced.target.labels)
    assert np.array_equal(animated.other_scene, replaced.target.pictures)
    driving_behind = behind & ~(animated.driving_mask.max(axis=-1) > 0)
    differs = replaced.target.pictures[driving_behind].astype(int) - replaced.driving[driving_behind]
    assert (np.abs(differs).max(axis=-1) == 0).mean() > 0.8  # all but the soft rims


def test_swapping_keeps_the_reference_and_changes_who_moves_how():
    plain, swapped = example(8), example(8, swap=True)
    red, blue = (IDENTITIES[name] for name in plain.group.identities)
    mask, turned = plain.reference_masks, swapped.reference_masks
    assert np.array_equal((mask == red).all(axis=-1), (turned == blue).all(axis=-1)) or _overlap(plain)
    assert np.array_equal(plain.driving, swapped.driving)
    assert not np.array_equal(plain.target.pictures, swapped.target.pictures)


def _overlap(made):
    """Whether the puppets of the reference overlap, where painting them in another order shows."""
    return not np.array_equal(made.references, Example.of(made.group.swapped(), made.mode, TIMES, SIZE).references)


def test_extra_references_stand_on_black():
    made = example(9, extras=1)
    assert made.references.shape == (2, SIZE, SIZE, 3) and made.reference_masks.shape == (2, SIZE, SIZE, 3)
    shot = made.group.picture(1, 1, 1, SIZE)
    assert np.array_equal(made.references[1:], blacked(shot))
    assert not made.reference_masks[1][~(shot.labels[0] > 0)].any()


def test_captions_are_made_of_known_words():
    for seed in range(50):
        assert set(example(seed, people=None).caption.split()) <= set(WORDS)
