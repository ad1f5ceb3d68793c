"""How the driving video's positions are rotated: pooled as upstream, or by their middle as ComfyUI."""

import math

import mlx.core as mx
import numpy as np
import pytest
from support import a_sampling

from mlx_backend.interface.errors import RequestError
from mlx_backend.models.rope import TokenGrid, midpoint_rotations, pooled_rotations
from mlx_backend.models.scail2 import positions

LANES = 64  # of a head of 128 channels: 22 turn with t, 21 with h, 21 with w
FRAMES, HEIGHT, WIDTH = 3, 8, 12  # latent: patches of 4 x 6, driving patches of 2 x 3


def midpoint_angle(lane, frame, row, column, video_t):
    """Return the angle of one lane of a driving token, written out anew."""
    if lane < 22:
        return (video_t + frame) * 10000 ** (-2 * lane / 44)
    if lane < 43:
        return (2 * row + 0.5) * 10000 ** (-2 * (lane - 22) / 42)
    return (120 + 2 * column + 0.5) * 10000 ** (-2 * (lane - 43) / 42)


@pytest.mark.parametrize(
    ("replacement", "references", "video_t"), [(False, 1, 1), (False, 3, 3), (True, 1, 0), (True, 3, 2)]
)
def test_midpoint_turns_each_driving_token_by_the_middle_of_its_patches(replacement, references, video_t):
    tables = positions(
        FRAMES,
        HEIGHT,
        WIDTH,
        128,
        references=references,
        driving=FRAMES,
        replacement=replacement,
        pose_rope="midpoint",
    )
    expected = [
        [midpoint_angle(lane, frame, row, column, video_t) for lane in range(LANES)]
        for frame in range(FRAMES)
        for row in range(2)
        for column in range(3)
    ]
    driving = [np.array(table)[-len(expected) :, 0] for table in tables]
    for found, turn in zip(driving, (math.cos, math.sin), strict=True):
        # float32 holds values up to 1 within 6e-8
        assert np.abs(found - np.vectorize(turn)(np.array(expected))).max() < 1e-7


def test_only_the_driving_tokens_change():
    size = {"references": 2, "driving": FRAMES, "replacement": True}
    upstream, midpoint = (positions(FRAMES, HEIGHT, WIDTH, 128, **size, pose_rope=r) for r in ("upstream", "midpoint"))
    driving = FRAMES * 2 * 3
    for one, other in zip(upstream, midpoint, strict=True):
        one, other = np.array(one), np.array(other)
        assert np.array_equal(one[:-driving], other[:-driving])
        assert np.abs(one[-driving:] - other[-driving:]).max() > 0.1  # the fast lanes shrink by up to 0.12


def test_both_turn_by_the_same_angles():
    """Pooling only shrinks: by cos of half the lane's step, on h and w lanes."""
    grid = TokenGrid(FRAMES, HEIGHT // 2, WIDTH // 2, (5, 0, 120))
    pooled, middle = pooled_rotations(grid, 128), midpoint_rotations(grid, 128)
    steps = np.concatenate([np.zeros(22), *[10000 ** (-2 * np.arange(21) / 42)] * 2])
    assert np.abs(pooled - np.cos(steps / 2) * middle).max() < 1e-12


def test_without_references_the_video_begins_at_zero():
    """As in ComfyUI, in both modes."""
    for replacement in (False, True):
        cos, sin = positions(2, HEIGHT, WIDTH, 128, references=0, driving=0, replacement=replacement)
        assert cos.shape == (2 * 4 * 6, 1, LANES)
        assert mx.array_equal(cos[0], mx.ones((1, LANES)))
        assert mx.array_equal(sin[0], mx.zeros((1, LANES)))


def test_an_unknown_choice_is_refused():
    with pytest.raises(RequestError, match="'middle' is unknown: choose one of upstream, midpoint"):
        a_sampling(pose_rope="middle")
