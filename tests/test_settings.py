"""The table of settings: every field of a run has its row, a member's defaults stand in, and no name is lost."""

from dataclasses import fields, replace

import pytest
from support import a_sampling

from mlx_backend.interface.continuation import Continuation
from mlx_backend.interface.requests import Economy, SamplingSettings, Scene
from mlx_backend.interface.settings import ROWS, sampling_of, scene_of
from mlx_backend.members.scail2.defaults import SCAIL2

PICTURES = {"references", "driving", "reference_masks", "driving_mask", "image", "last_image"}
OTHER = replace(SCAIL2, steps=9, segment_length=41, segment_overlap=9, width=64, height=96, driving_fps=24.0)


def names(part):
    return {field.name for field in fields(part)}


def test_every_field_has_one_row():
    """A field without a row could be set by no widget and no option; two rows for one would fight."""
    filled = sorted(row.fills for row in ROWS.values() if row.fills)
    wanted = [
        *(names(SamplingSettings) - {"economy", "continuation"}),
        *(f"economy.{name}" for name in names(Economy)),
        *(f"continuation.{name}" for name in names(Continuation)),
        *(f"scene.{name}" for name in names(Scene) - PICTURES),
    ]
    assert filled == sorted(wanted)


def test_what_the_table_leaves_to_a_run_is_what_the_classes_leave_to_it():
    """Settings made from the table and those made by hand, as a program does it, are the same run."""
    assert sampling_of({}, SCAIL2) == SamplingSettings(
        **{name: getattr(SCAIL2, name) for name in ("steps", "cfg", "shift", "solver")},
        segment_length=SCAIL2.segment_length,
        segment_overlap=SCAIL2.segment_overlap,
    )
    made, by_hand = scene_of({}, {}, SCAIL2), Scene(width=SCAIL2.width, height=SCAIL2.height, fps=SCAIL2.driving_fps)
    assert all(getattr(made, name) == getattr(by_hand, name) for name in names(Scene) - PICTURES)


def test_defaults_are_those_of_the_member_that_runs():
    expected = a_sampling(steps=9, segment_length=41, segment_overlap=9)
    assert sampling_of({}, OTHER) == sampling_of({"steps": None}, OTHER) == expected
    scene = scene_of({}, {}, OTHER)
    assert (scene.width, scene.height, scene.fps) == (64, 96, 24.0)


@pytest.mark.parametrize("make", [sampling_of, lambda given, defaults: scene_of(given, {}, defaults)])
def test_a_name_that_no_row_has_is_not_passed_over(make):
    with pytest.raises(TypeError, match="no setting named segment_overlp"):
        make({"steps": 9, "segment_overlp": 9}, SCAIL2)
