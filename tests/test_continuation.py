"""How segments continue from each other: history, anchored colours, noise."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from support import golden_prompts, golden_scene, golden_settings, sample_clip

from mlx_backend.interface.continuation import Continuation
from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.geometry import LatentSize
from mlx_backend.interface.requests import SamplingSettings
from mlx_backend.interface.segments import plan_segments
from mlx_backend.media.colour import colours_of
from mlx_backend.pipelines.continuing import Continuing
from mlx_backend.pipelines.decode import decode_latents, decode_segment, last_frames
from mlx_backend.pipelines.latents import SegmentLatents
from mlx_backend.pipelines.picture import ClipRequest
from mlx_backend.pipelines.store import get_vae
from mlx_backend.pipelines.text import encode_prompts
from mlx_backend.sampling.noise import TorchNoise, segment_noise

INDEX = 3  # the golden case of three segments
ROUNDING = 1e-5  # float32, of values about 1


def settings(**continuation) -> SamplingSettings:
    return replace(golden_settings(INDEX), continuation=Continuation(**continuation))


@pytest.fixture(scope="module")
def sampled(models):
    """Return what samples the golden case of three segments, and remembers it."""
    made = {}

    def sample(listener, **continuation):
        key = tuple(sorted(continuation.items()))
        if key not in made:
            scene, prompts = golden_scene(INDEX), golden_prompts(INDEX)
            text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
            clip = ClipRequest(models.clip, scene.references)
            made[key] = sample_clip(models.dit, models.vae, text, clip, scene, settings(**continuation), listener)
        return made[key]

    return sample


def test_history_latents_are_taken_over_as_they_are(sampled, listener):
    latents = sampled(listener, history="latents")
    for before, after in zip(latents.segments, latents.segments[1:], strict=False):
        assert np.array_equal(after[:, 1], before[:, -1])  # five frames are two latents, the first of them of one frame


def test_the_first_latent_is_that_of_the_frame_it_stands_for(sampled, models, listener):
    latents = sampled(listener, history="latents")
    vae = get_vae(models.vae, listener)
    frames = last_frames(vae, latents.segments[0], 5, listener.check_cancelled)
    alone = np.array(vae.encode(mx.array(frames[:1]) * 2 - 1))
    assert np.array_equal(latents.segments[1][:, :1], alone)


def test_history_pixels_are_encoded_again(sampled, listener):
    latents = sampled(listener)
    assert not np.allclose(latents.segments[1][:, 1], latents.segments[0][:, -1], atol=0.01)


def test_a_latent_anchor_keeps_each_channel_at_the_first_segments(sampled, listener):
    latents = sampled(listener, anchor="latent")
    first, over = latents.segments[0][:, 1:], (1, 2, 3)
    for segment in latents.segments[1:]:
        fresh = segment[:, 2:]  # behind the two latents of the history
        assert np.abs(fresh.mean(axis=over) - first.mean(axis=over)).max() < ROUNDING
        assert np.abs(fresh.std(axis=over) - first.std(axis=over)).max() < ROUNDING
    free = sampled(listener).segments[1][:, 2:]
    assert np.abs(free.mean(axis=over) - first.mean(axis=over)).max() > 0.01


def test_a_lab_anchor_gives_every_segment_the_colours_of_the_first(sampled, models, listener):
    latents = sampled(listener, anchor="lab")
    frames = decode_latents(models.vae, latents, None, listener)
    free = decode_latents(models.vae, SegmentLatents(latents.segments, latents.plan), None, listener)
    first = latents.plan.segments[0].frames
    wanted = colours_of(frames[:first])
    assert np.array_equal(frames[:first], free[:first])
    for segment in latents.plan.segments[1:]:
        own = slice(segment.start + segment.history, segment.start + segment.frames)
        gap, before = (np.abs(np.array(colours_of(clip[own]).mean) - wanted.mean).max() for clip in (frames, free))
        assert gap < 1  # of L* 0..100: what leaves sRGB is clipped, and a random VAE makes much of that
        assert before > 10


def drifting(models, listener, anchor, length=13):
    """Return what continues three segments of noise, each brighter than the one before, and these."""
    plan = plan_segments(3 * length - 10, length, 5)
    shape = (16, (length + 3) // 4, 8, 12)
    made = [np.random.default_rng(i).normal(0.3 * i, 1, shape).astype(np.float32) for i in range(3)]
    vae = get_vae(models.vae, listener)
    how = Continuation(anchor=anchor)
    return Continuing(vae=vae, how=how, plan=plan, tiling=None, listener=listener), made


def test_what_is_continued_from_has_the_colours_that_are_shown(models, listener):
    """Else the corrected end of a segment and the start of the next one would differ."""
    continuing, made = drifting(models, listener, "lab")
    shown = decode_latents(
        models.vae, SegmentLatents(tuple(made), continuing.plan, matches_colours=True), None, listener
    )
    end = continuing.plan.segments[1].start + 13
    assert np.abs(continuing._last_frames(2, made, 5) - shown[end - 5 : end]).max() < ROUNDING


def test_frames_that_a_short_segment_has_from_the_one_before_are_not_corrected_twice(models, listener):
    continuing, made = drifting(models, listener, "lab", length=9)  # of the last five frames the first is known
    plain = last_frames(continuing.vae, made[1], 5, listener.check_cancelled)
    corrected = continuing._last_frames(2, made, 5)
    assert np.array_equal(corrected[0], plain[0])
    assert np.abs(corrected[1:] - plain[1:]).max() > 0.01


def test_a_resumed_run_finds_the_first_segments_colours_again(models, listener):
    continuing, made = drifting(models, listener, "lab")
    size = LatentSize(4, 8, 12)
    continuing.history(1, made, size)
    fresh, _ = drifting(models, listener, "lab")
    assert np.array_equal(
        np.array(fresh.history(2, made, size).clean), np.array(continuing.history(2, made, size).clean)
    )


def test_all_frames_are_seen_once(models, listener):
    """The moments of tiles are those of the whole frames."""
    from mlx_backend.interface.tiling import Tiling

    vae = get_vae(models.vae, listener)
    latent = np.random.default_rng(7).normal(size=(16, 3, 20, 20)).astype(np.float32)
    whole = decode_segment(vae, latent, None, listener.check_cancelled, lambda share: None)
    for tiling in (None, Tiling(128, 64)):
        seen = np.full_like(whole, np.nan)
        count = 0

        def see(first, pieces):
            nonlocal count
            count += pieces[..., 0].size

        last = last_frames(vae, latent, 5, listener.check_cancelled, tiling, see=see)
        assert count == seen[..., 0].size
        assert np.abs(last - whole[-5:]).max() < 2e-5


@pytest.mark.parametrize(("mode", "seeds"), [("fixed", (7, 7, 7)), ("advancing", (7, 8, 9))])
def test_the_noise_of_later_segments(mode, seeds):
    shapes = [(16, 3, 4, 4), (16, 3, 4, 4), (16, 2, 4, 4)]
    found = list(segment_noise(7, mode, shapes))
    for noise, seed, shape in zip(found, seeds, shapes, strict=True):
        assert np.array_equal(noise, TorchNoise(seed).draw(shape))
    running = list(segment_noise(7, "running", shapes))
    assert np.array_equal(running[0], found[0])
    assert not np.array_equal(running[1], found[1])


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"history": "frames"}, "The history 'frames' is unknown"),
        ({"anchor": "rgb"}, "The colour anchor 'rgb' is unknown"),
        ({"seed": "random"}, "The segment seed 'random' is unknown"),
        ({"anchor": "lab", "history": "latents"}, "choose the anchor 'latent'"),
    ],
)
def test_impossible_choices_are_refused(choice, told):
    with pytest.raises(RequestError, match=told):
        Continuation(**choice)
