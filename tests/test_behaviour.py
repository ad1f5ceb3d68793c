"""What the small trained model does through the pipeline: moves, keeps identities and scenes; and faults are seen.

`python -m training.evaluate` measures the same on more clips; the bars here are looser, for a few of them.
"""

from dataclasses import replace

import numpy as np
import pytest

from mlx_backend.interface.small_model import SMALL_MODEL
from training import evaluate
from training.evaluate import LONG_FRAMES, SETTINGS, Judge, example
from training.faults import FAULTS, fault
from training.measures import drift, routed, seam_ratio, verdict
from training.sizes import FRAMES, OVERLAP
from world.scenes import MODES

QUICK = replace(SETTINGS, steps=6)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def judge():
    return Judge(SMALL_MODEL, QUICK)


@pytest.fixture(scope="module")
def verdicts(judge):
    return {mode: judged(judge, mode) for mode in MODES}


def judged(judge, mode):
    examples = [example(seed, mode) for seed in SEEDS]
    return [verdict(judge.frames(made), made) for made in examples]


def mean(found, name):
    return float(np.mean([getattr(v, name) for v in found]))


def test_the_shipped_model_is_small():
    assert sum(path.stat().st_size for path in SMALL_MODEL.iterdir()) <= 12e6


@pytest.mark.parametrize("mode", MODES)
def test_the_characters_move_as_the_driving_ones(verdicts, mode):
    assert mean(verdicts[mode], "motion") < 0.04
    assert mean(verdicts[mode], "followed") > 0.2  # a still picture has 0


@pytest.mark.parametrize("mode", MODES)
def test_the_characters_look_like_the_reference(verdicts, mode):
    assert mean(verdicts[mode], "identity") > 0.8


@pytest.mark.parametrize("mode", MODES)
def test_the_right_scene_is_kept(verdicts, mode):
    kept, other = (mean(verdicts[mode], name) for name in ("kept", "other"))
    assert kept > 20 and kept > other + 4


def test_identity_colours_decide_who_moves_how(judge):
    pairs = evaluate.swaps(2)
    assert any(routed(judge.frames(plain), judge.frames(turned), plain, turned) for plain, turned in pairs)


def test_segments_go_on_from_each_other(judge):
    made = example(0, "animation", LONG_FRAMES)
    frames = judge.frames(made)
    assert len(frames) == LONG_FRAMES
    assert seam_ratio(frames, FRAMES, OVERLAP) < 1.7
    assert drift(frames, made) < 0.03


def test_a_dropped_history_is_seen():
    with fault("history"):
        frames = Judge(SMALL_MODEL, QUICK).frames(example(0, "animation", LONG_FRAMES))
    assert seam_ratio(frames, FRAMES, OVERLAP) > 1.7


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"history"}))
def test_a_fault_is_seen(verdicts, name):
    """A result with the fault is further from the target."""
    with fault(name):
        broken = judged(Judge(SMALL_MODEL, QUICK), "animation")
    assert mean(broken, "whole") < mean(verdicts["animation"], "whole") - 1
