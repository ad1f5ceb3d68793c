"""Frames at another rate: which ones, how many, and sound of the same length."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mlx_backend.interface.errors import RequestError
from mlx_backend.media.timing import fitted_waveform, resampling

RATES = [8.0, 12.5, 15.0, 16.0, 23.976, 24.0, 25.0, 30000 / 1001, 30.0, 59.94, 60.0]
NTSC = Fraction(30000, 1001)


def numbered(frames, *shape):
    """Return a batch whose pixels say which frame they are of."""
    return torch.arange(frames, dtype=torch.float32).reshape(-1, *[1] * len(shape)).expand(-1, *shape) / 1000


def run(nodes, frames=48, source=24.0, target=16.0, **optional):
    images = numbered(frames, 4, 6, 3)
    return nodes["Scail2ResampleFps"]({"images": images, "source_fps": source, "target_fps": target, **optional})


def tone(seconds, rate=8000, channels=2):
    waveform = torch.sin(torch.arange(round(seconds * rate)) / 7).expand(1, channels, -1)
    return {"waveform": waveform.contiguous(), "sample_rate": rate}


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("frames", [1, 2, 7, 81, 240])
def test_each_new_frame_shows_the_last_old_one_at_or_before_its_moment(source, frames):
    plan = resampling(frames, source, 16.0)
    for number, pick in enumerate(plan.picks):
        moment = number / Fraction(16)
        assert pick / plan.source <= moment < (pick + 1) / plan.source
        assert 0 <= pick < frames


@pytest.mark.parametrize("target", RATES)
@pytest.mark.parametrize("source", RATES)
def test_the_duration_stays_within_half_a_frame(source, target):
    for frames in range(math.ceil(source / target), 130, 9):
        plan = resampling(frames, source, target)
        assert abs(plan.seconds - frames / float(plan.source)) <= 0.5 / target + 1e-9


def test_the_frames_of_two_seconds_at_24_are_picked_by_hand():
    assert resampling(6, 24.0, 16.0).picks.tolist() == [0, 1, 3, 4]
    assert resampling(4, 16.0, 24.0).picks.tolist() == [0, 0, 1, 2, 2, 3]
    assert resampling(5, 30.0, 16.0).picks.tolist() == [0, 1, 3]
    assert resampling(1, 60.0, 16.0).picks.tolist() == [0]


def test_rates_of_television_are_exact():
    """In floats 16 / (30000 / 1001) is a little low, and whole frames would be missed after a while."""
    plan = resampling(17000, 16.0, 29.97002997002997)
    assert (plan.source, plan.target) == (16, NTSC)
    assert plan.picks[30000] == 16016
    assert resampling(10, 23.976, 16.0).source == Fraction("23.976")


@pytest.mark.parametrize("rate", RATES)
def test_there_and_back_is_as_long_to_a_frame(rate):
    for frames in (25, 81, 200):
        there = resampling(frames, rate, 16.0)
        back = resampling(len(there.picks), 16.0, rate)
        assert abs(len(back.picks) - frames) <= max(1, rate / 16 / 2 + 0.5)


@pytest.mark.parametrize("rate", [*RATES, 240.0])
@pytest.mark.parametrize("frames", [1, 2, 9, 24, 81, 200])
def test_back_to_a_count_has_that_count_and_stays_in_step(rate, frames):
    there = resampling(frames, rate, 16.0)
    back = resampling(len(there.picks), 16.0, rate, frames)
    assert len(back.picks) == frames
    for number, pick in enumerate(back.picks):
        moment = number / back.target
        assert pick == min(moment * 16 // 1, len(there.picks) - 1)


def test_equal_rates_change_nothing(nodes):
    images, _, _, fps, frames = run(nodes, source=16.0)
    assert torch.equal(images, numbered(48, 4, 6, 3))
    assert (fps, frames) == (16.0, 48)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8)])
def test_a_mask_goes_with_the_frames_and_stays_as_pure(shape, nodes):
    images, mask, audio, fps, frames = run(nodes, mask=numbered(48, *shape))
    assert (len(images), fps, frames, audio) == (32, 16.0, 32, None)
    assert mask.shape == (32, *shape)
    shown = images[:, 0, 0, 0]
    assert torch.equal(mask.reshape(32, -1), shown[:, None].expand(-1, math.prod(shape)))
    assert set(shown.tolist()) <= set(numbered(48, 1)[:, 0].tolist())  # nothing is blended


def test_sound_of_the_right_length_passes_unchanged(nodes):
    audio = tone(2.0)
    assert torch.equal(run(nodes, audio=audio)[2]["waveform"], audio["waveform"])
    assert run(nodes, audio=audio)[2]["sample_rate"] == 8000


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("seconds", [1.3, 2.7])
def test_sound_is_cut_or_lengthened_by_silence_to_the_clip(seconds, rate, nodes):
    audio = tone(seconds, rate)
    images, _, fitted, fps, _ = run(nodes, frames=50, source=30.0, audio=audio)
    kept = min(round(len(images) / fps * rate), round(seconds * rate))
    assert fitted["waveform"].shape == (1, 2, round(len(images) / fps * rate))
    assert torch.equal(fitted["waveform"][..., :kept], audio["waveform"][..., :kept])
    assert not fitted["waveform"][..., kept:].any()
    assert fitted["waveform"].dtype == audio["waveform"].dtype


def test_a_clip_goes_to_16_and_back_with_its_sound(nodes):
    """What a workflow does around the sampler: 29.97 to 16, then the result to 29.97 with the first sound."""
    audio = tone(81 / float(NTSC))
    images, mask, at_16, fps, _ = run(nodes, frames=81, source=float(NTSC), mask=numbered(81, 4, 6), audio=audio)
    back = nodes["Scail2ResampleFps"](
        {"images": images, "source_fps": fps, "target_fps": float(NTSC), "mask": mask, "audio": audio}
    )
    images, mask, sound, fps, frames = back
    assert abs(frames - 81) <= 1
    assert len(images) == len(mask) == frames
    assert abs(sound["waveform"].shape[-1] / 8000 - frames / fps) < 1 / 8000
    assert abs(at_16["waveform"].shape[-1] - sound["waveform"].shape[-1]) <= 8000 / 16
    late = (torch.arange(frames) - images[:, 0, 0, 0] * 1000).abs()
    assert late.max() < 1 + 30 / 16  # never later than a frame of each rate


@pytest.mark.parametrize("fps", [0.0, -24.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["source", "target"])
def test_a_rate_that_is_none_is_refused(name, fps, nodes):
    with pytest.raises(RequestError, match=f"The {name}_fps is .* above 0"):
        resampling(3, **{"source_fps": 24.0, "target_fps": 16.0} | {f"{name}_fps": fps})
    with pytest.raises(Exception, match=f"The {name}_fps is"):
        run(nodes, **{name: fps})


def test_no_frames_and_other_lengths_are_refused(nodes):
    with pytest.raises(Exception, match="The images have 0 frames"):
        run(nodes, frames=0)
    with pytest.raises(Exception, match="The mask has 1 frame and the images 48"):
        run(nodes, mask=numbered(1, 4, 6))


def test_sound_that_is_none_is_refused(listener):
    with pytest.raises(RequestError, match="The audio has shape"):
        fitted_waveform(np.zeros((2, 100)), 8000, 1.0, listener)
    with pytest.raises(RequestError, match="0 samples per second"):
        fitted_waveform(np.zeros((1, 2, 100)), 0, 1.0, listener)


def test_the_node_says_what_it_did(nodes, caplog):
    with caplog.at_level("INFO", "scail2_mlx"):
        run(nodes)
    assert "48 frames at 24 fps (2.00 s) become 32 at 16 fps (2.00 s); 16 are left out." in caplog.text


@pytest.mark.parametrize(("seconds", "words"), [(2.5, "its end is cut"), (1.5, "silence follows"), (2.1, None)])
def test_sound_of_another_length_hints_at_a_wrong_rate(seconds, words, nodes, caplog):
    with caplog.at_level("INFO", "scail2_mlx"):
        run(nodes, audio=tone(seconds))
    assert (f"The audio lasts {seconds:.2f} s and the clip 2.00 s" in caplog.text) == (words is not None)
    assert words is None or words in caplog.text
