"""Lab, moments and matched colours."""

import numpy as np
import pytest

from mlx_backend.media.colour import ColourSum, colours_of, from_lab, match_colours, to_lab

# CIE L*a*b* (D65, 2 degrees) of sRGB colours, as colour calculators give them to two decimals.
KNOWN = [
    ((1, 1, 1), (100.0, 0.0, 0.0)),
    ((0, 0, 0), (0.0, 0.0, 0.0)),
    ((1, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 1, 0), (87.73, -86.18, 83.18)),
    ((0, 0, 1), (32.30, 79.19, -107.86)),
    ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
]


@pytest.mark.parametrize(("rgb", "lab"), KNOWN)
def test_lab_of_known_colours(rgb, lab):
    assert np.abs(to_lab(np.array(rgb, np.float32)) - lab).max() < 0.02  # the tables' two decimals, and their matrices


def test_lab_and_back_is_the_same_picture():
    picture = np.random.default_rng(1).random((40, 50, 3), np.float32)
    again = from_lab(to_lab(picture))
    assert np.abs(again - picture).max() < 1e-5  # float32 through two powers
    assert again.dtype == np.float32


def clip(seed, low, high):
    return np.random.default_rng(seed).uniform(low, high, (3, 20, 30, 3)).astype(np.float32)


def test_moments_do_not_depend_on_the_pieces():
    pictures, total = clip(2, 0.1, 0.9), ColourSum()
    total.add(pictures[:2, :7])
    total.add(pictures[2:, :7])
    total.add(pictures[:, 7:])
    whole = colours_of(pictures)
    assert np.allclose(total.colours().mean, whole.mean, atol=1e-9)
    assert np.allclose(total.colours().deviation, whole.deviation, atol=1e-9)
    assert np.allclose(whole.mean, to_lab(pictures).reshape(-1, 3).mean(axis=0), atol=1e-3)
    assert np.allclose(whole.deviation, to_lab(pictures).reshape(-1, 3).std(axis=0), atol=1e-3)


def test_matched_pictures_have_the_wanted_moments():
    wanted = colours_of(clip(3, 0.3, 0.6))
    pictures = clip(4, 0.35, 0.75) * np.float32([1, 0.9, 0.8])
    match_colours(pictures, colours_of(pictures), wanted)
    found = colours_of(pictures)
    assert np.allclose(found.mean, wanted.mean, atol=0.05)  # of L* 0..100; a few colours leave sRGB and are clipped
    assert np.allclose(found.deviation, wanted.deviation, atol=0.1)


def test_a_flat_picture_is_moved_and_not_stretched():
    pictures = np.full((1, 8, 8, 3), 0.4, np.float32)
    wanted = colours_of(clip(5, 0.2, 0.8))
    match_colours(pictures, colours_of(pictures), wanted)
    assert np.allclose(colours_of(pictures).mean, wanted.mean, atol=0.05)
    assert max(colours_of(pictures).deviation) < 1e-3
