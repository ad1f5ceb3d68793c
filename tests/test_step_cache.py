"""Passes that are left out: by whom, when, and what comes of it. Expected schedules are worked out by hand here."""

import itertools
import logging

import mlx.core as mx
import numpy as np
import pytest
from support import a_sampling, golden_cases, golden_prompts, golden_scene, golden_settings, sample_clip

from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.requests import Economy
from mlx_backend.members.scail2.prepared import prepare_run
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.pipelines.picture import ClipRequest
from mlx_backend.pipelines.text import encode_prompts
from mlx_backend.sampling.easycache import EasyCache
from mlx_backend.sampling.economy import Passes, segment_velocity
from mlx_backend.sampling.guidance import guided
from mlx_backend.sampling.magcache import CONDITIONAL, UNCONDITIONAL, MagCache, interpolated, skipped_steps
from mlx_backend.sampling.step_cache import CachedVelocity

# EasyCache


def run_schedule(rule, samples, velocities):
    """Walk a rule through one-value samples and velocities: R where it runs the model, . where it reuses."""
    cached, ran = None, ""
    calls = []
    velocity_at = iter(range(len(samples)))

    def model(x, t):
        calls.append(t)
        return mx.array([velocities[int(t)]])

    cached = CachedVelocity(model, rule)
    out = [cached(mx.array([x]), float(step)).item() for step, x in zip(velocity_at, samples, strict=True)]
    ran = "".join("R" if step in calls else "." for step in range(len(samples)))
    return ran, out


def test_easycache_adds_up_the_expected_changes():
    """Eight steps: 0 and 1 always run (a quarter), 7 too.

    Samples fall by 1 per step from 10. Velocity is 20 at step 0 and 22 at step 1: k = 2 / 1 = 2. So each step expects a
    change of 2 * 1 / 22 = 0.0909. Threshold 0.2: step 2 expects 0.0909 and reuses, step 3 expects 0.1818 and reuses,
    step 4 expects 0.2727 and runs. It finds 28: k = |28 - 22| / |6 - 9| = 2, a change of 2 / 28 = 0.0714 per step:
    steps 5 (0.0714) and 6 (0.1429) reuse, step 7 is the last.
    A reused velocity is the sample plus the last run's difference: 22 - 9 = 13, then 28 - 6 = 22.
    """
    samples = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    velocities = {0: 20.0, 1: 22.0, 4: 28.0, 7: 30.0}
    ran, out = run_schedule(EasyCache(8, 0.2), samples, velocities)
    assert ran == "RR..R..R"
    assert out == [20, 22, 8 + 13, 7 + 13, 28, 5 + 22, 4 + 22, 30]


def test_easycache_measures_the_sample_in_every_step_but_k_between_runs():
    """Steps of 1 that turn into steps of 4: the long step alone reaches the threshold.

    k = |12 - 10| / |1 - 0| = 2 at step 1. Step 2: 2 * 1 / 12 = 0.167 < 0.3, reused. Step 3: + 2 * 4 / 12 = 0.833, runs
    and finds 11: k = |11 - 12| / |6 - 1| = 0.2. Step 4: 0.2 * 4 / 11 = 0.0727. Step 5: 0.145. Step 6: 0.218. Step 7 is
    the last.
    """
    samples = [0.0, 1.0, 2.0, 6.0, 10.0, 14.0, 18.0, 22.0]
    velocities = {0: 10.0, 1: 12.0, 3: 11.0, 7: 9.0}
    assert run_schedule(EasyCache(8, 0.3), samples, velocities)[0] == "RR.R...R"


def test_easycache_reads_magnitudes_as_means_over_the_latent():
    """Changes of opposite sign do not cancel: |+2| and |-2| are a mean of 2, over a velocity of |3| and |5|, mean 4.

    k = 2 / 1. Step 2 of 8 expects 2 * 1 / 4 = 0.5: it runs at a threshold of 0.5, and is reused just above.
    """

    def decision(threshold):
        rule = EasyCache(8, threshold)
        for step, (x, v) in enumerate((([0, 0], [1.0, -7.0]), ([1, -1], [3.0, -5.0]))):
            rule.must_run(step, mx.array(x))
            rule.learn(mx.array(x), mx.array(v))
        return rule.must_run(2, mx.array([2, -2]))

    assert decision(0.5)
    assert not decision(0.501)


@pytest.mark.parametrize(("steps", "first"), [(40, 10), (20, 5), (30, 8), (6, 2), (2, 1)])
def test_easycache_runs_the_first_quarter_and_the_last_step(steps, first):
    """A velocity that never changes is expected never to change: everything between is reused."""
    samples = np.linspace(1, 0, steps).tolist()
    ran, _ = run_schedule(EasyCache(steps, 0.05), samples, dict.fromkeys(range(steps), 3.0))
    expected = "R" * max(first, 2) + "." * (steps - 1 - max(first, 2)) + "R"  # k needs two runs
    assert ran == expected[:steps] if steps > 2 else ran == "RR"


@pytest.mark.parametrize(("samples", "velocity"), [([5.0] * 8, 3.0), ([float(i) for i in range(8)], 0.0)])
def test_easycache_runs_where_nothing_can_be_expected(samples, velocity):
    """A sample that stands still gives no k, a velocity of zero no relative change."""
    assert run_schedule(EasyCache(8, 0.5), samples, dict.fromkeys(range(8), velocity))[0] == "R" * 8


def test_the_branches_reuse_their_own_velocities_in_the_same_steps():
    """The samples and velocities of the first test for the prompt's branch; the other one's velocity is 5 in each run.

    At reused steps: 5 - 9 = -4 over the sample, later 5 - 6 = -1. cfg 3: negative + 3 * (positive - negative).
    """
    samples = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    velocities = {0: 20.0, 1: 22.0, 4: 28.0, 7: 30.0}
    ran = []

    def negative(x, t):
        ran.append(int(t))
        return mx.array([5.0])

    settings = a_sampling(steps=8, cfg=3, economy=Economy(step_cache="easycache", threshold=0.2))
    passes = Passes()
    velocity = segment_velocity(lambda x, t: mx.array([velocities[int(t)]]), negative, settings, passes)
    out = [velocity(mx.array([x]), float(step)).item() for step, x in enumerate(samples)]
    assert ran == [0, 1, 4, 7]
    positive = [20, 22, 21, 20, 28, 27, 26, 30]
    without = [5, 5, 8 - 4, 7 - 4, 5, 5 - 1, 4 - 1, 5]
    assert out == [n + 3 * (p - n) for p, n in zip(positive, without, strict=True)]
    assert (passes.run, settings.passes) == (8, 16)


# MagCache


def test_magcache_leaves_out_what_its_ratios_allow():
    """Ten steps, the first two (a fifth) and the last always run. Errors of products 0.9, 0.81, 0.729, ...

    Threshold 0.35, K 4: step 2 |1 - 0.9| = 0.1; step 3 + 0.19 = 0.29; step 4 + 0.271 = 0.561 runs. Step 5 0.1; step 6
    0.29; step 7 runs; step 8 0.1; step 9 is the last.
    """
    ratios = [1.0] + [0.9] * 9
    assert skipped_steps(ratios, 0.35, 4) == {2, 3, 5, 6, 8}
    assert skipped_steps(ratios, 0.35, 1) == {2, 4, 6, 8}  # K 1: after each one left out, one runs
    assert skipped_steps(ratios, 0.09, 4) == set()


def test_magcache_of_exact_binary_ratios():
    """Sums that are exact in binary, so that "below" can be told from "at" the threshold.

    At 0.25: steps 2 (0.25), 3 (0.25), 4 (0.5) and 7 (0.25) run, each starting anew; 5, 6 and 8 err by 0.
    At 0.8125: step 2 0.25; 3: + |1 - 1.5625| = 0.8125 runs; 4 0.5; 5: + 0.5 = 1 runs; 6 0; 7 0.25; 8: + 0.25 = 0.5.
    """
    ratios = [1.0, 1.0, 1.25, 1.25, 0.5, 1.0, 1.0, 1.25, 1.0, 1.0]
    assert skipped_steps(ratios, 0.25, 4) == {5, 6, 8}
    assert skipped_steps(ratios, 0.8125, 4) == {2, 4, 6, 7, 8}


def test_magcache_schedule_of_the_published_ratios():
    """40 steps at 0.12 and K 4, as published (E012K4R02): how the sums of the errors grow, worked out from the list.

    8 .00948, 9 .02507, 10 .05191, 11 .08786, and 12 would be .13493. 13 .00943, 14 .02919, 15 .06267, 16 .10752, and 17
    .16425. 18 .01192, 19 .03648, 20 .07497; 21 .12748. 22 .01843, 23 .05246, 24 .10627; 25 .17759. 26 .02260, 27
    .06646; 28 .13561. 29 .02915, 30 .08688; 31 .17676. 32 .03887, 33 .11936; 34 .24618. 35 .06027; 36 .18428. 37
    .08122; 38 .24554. 39 is the last.
    """
    skipped = sorted(skipped_steps(interpolated(CONDITIONAL, 40), 0.12, 4))
    assert skipped == [8, 9, 10, 11, 13, 14, 15, 16, 18, 19, 20, 22, 23, 24, 26, 27, 29, 30, 32, 33, 35, 37]
    assert all(0.8 < ratio <= 1 for ratio in (*CONDITIONAL, *UNCONDITIONAL))
    assert len(CONDITIONAL) == len(UNCONDITIONAL) == 40


def test_magcache_ratios_are_the_nearest_of_forty():
    assert interpolated(CONDITIONAL, 40) == CONDITIONAL
    # 14 steps: every third of 0..39. 79: halves, to the even side: 0.5 -> 0, 1.5 -> 2.
    assert interpolated(range(40), 14) == tuple(range(0, 40, 3))
    assert interpolated(range(40), 79)[:8] == (0, 0, 1, 2, 2, 2, 3, 4)
    assert interpolated(CONDITIONAL, 1) == (CONDITIONAL[-1],)


@pytest.mark.parametrize(("steps", "first"), [(40, 8), (20, 4), (21, 5), (6, 2), (1, 1)])
def test_magcache_runs_the_first_fifth_and_the_last_step(steps, first):
    rule = MagCache([1.0] * 40, steps, 1.0)
    ran = [step for step in range(steps) if rule.must_run(step, None)]
    assert ran[: min(first, steps)] == list(range(min(first, steps)))
    assert ran[-1] == steps - 1
    between = list(range(first, steps - 1))
    assert [step for step in between if step in ran] == between[4::5]  # never more than four in a row are left out


# Guidance


def test_gating_keeps_the_last_difference():
    """Four steps, guidance in two: negative runs in 0 and 1; then negative is positive minus the gap of step 1, 7."""
    ran = []

    def negative(x, t):
        ran.append(t)
        return mx.array([1.0 + t])

    velocity = guided(lambda x, t: mx.array([8.0 + 2 * t * t]), negative, 3.0, 2)
    out = [velocity(mx.array([0.0]), t).item() for t in range(4)]
    assert ran == [0, 1]
    # Step 0: 1 + 3 * (8 - 1). Step 1: 2 + 3 * (10 - 2), gap 8. Step 2: (16 - 8) + 3 * 8. Step 3: (26 - 8) + 3 * 8.
    assert out == [22, 26, 32, 42]


@pytest.mark.parametrize(
    ("share", "steps", "guided_steps"),
    [(1.0, 40, 40), (0.5, 40, 20), (0.5, 5, 3), (0.55, 40, 22), (0.05, 6, 1), (0.7, 10, 7), (1.0, 1, 1)],
)
def test_shares_of_the_steps_are_rounded_up(share, steps, guided_steps):
    assert Economy(guidance_until=share).guided_steps(steps) == guided_steps


# Passes


def passes_of(settings):
    """Run a segment of a model whose velocity changes at an even rate: (passes run, passes due, calls per branch)."""
    calls = {"positive": 0, "negative": 0}

    def branch(name, factor):
        def velocity(x, t):
            calls[name] += 1
            return factor * x

        return velocity

    passes = Passes()
    negative = branch("negative", 1.25) if settings.is_guided else None
    velocity = segment_velocity(branch("positive", 1.5), negative, settings, passes)
    for step in range(settings.steps):
        velocity(mx.array([100.0 - step]), 0.0)
    return passes.run, settings.passes, calls["positive"], calls["negative"]


@pytest.mark.parametrize(
    ("steps", "cfg", "economy", "expected"),
    [
        (6, 1.0, Economy(), (6, 6, 6, 0)),  # a distilled recipe
        (6, 0.0, Economy(), (6, 6, 6, 0)),
        (40, 5.0, Economy(), (80, 80, 40, 40)),  # upstream's
        (40, 5.0, Economy(guidance_until=0.5), (60, 80, 40, 20)),
        (40, 5.0, Economy(guidance_until=0.6), (64, 80, 40, 24)),
        (40, 1.0, Economy(guidance_until=0.5), (40, 40, 40, 0)),
        # 22 of 40 steps are left out by each branch, see above: 18 + 18.
        (40, 5.0, Economy(step_cache="magcache", threshold=0.12), (36, 80, 18, 18)),
        # Negative only in the first 20 steps, of which 8..11, 13..16, 18 and 19 are left out: 10 run.
        (40, 5.0, Economy(step_cache="magcache", threshold=0.12, guidance_until=0.5), (28, 80, 18, 10)),
        (40, 1.0, Economy(step_cache="magcache", threshold=0.12), (18, 40, 18, 0)),
        # k is 1.5, the velocity 1.5 x: each step expects 1 / (the sample of the last run), which is 91 at step 9. Four
        # steps are 4/91 = 0.044, the fifth would be 0.055: so 14, 19 (5/86), 24 (5/81), 29 (5/76) run, then from 71 on
        # four are 0.056: 33, 37 (4/67), 39 the last: 10 + 7 runs of 40.
        (40, 5.0, Economy(step_cache="easycache", threshold=0.05), (34, 80, 17, 17)),
        (40, 5.0, Economy(step_cache="easycache", threshold=0.0), (80, 80, 40, 40)),
        (40, 5.0, Economy(step_cache="magcache", threshold=0.0), (80, 80, 40, 40)),
    ],
)
def test_passes_run_and_due(steps, cfg, economy, expected):
    assert passes_of(a_sampling(steps=steps, cfg=cfg, economy=economy)) == expected


# Whole runs of the tiny golden model


def sampled(models, index, listener, monkeypatch=None, **changes):
    """Sample a golden case under changed settings: its latents, and how often the model ran."""
    from dataclasses import replace

    settings = replace(golden_settings(index), **changes)
    calls = []
    if monkeypatch is not None:

        def counted(self, *arguments, forward=Scail2Model.__call__):
            calls.append(1)
            return forward(self, *arguments)

        monkeypatch.setattr(Scail2Model, "__call__", counted)
    scene, prompts = golden_scene(index), golden_prompts(index)
    text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
    clip = ClipRequest(models.clip, scene.references[:1])
    latents = sample_clip(models.dit, models.vae, text, clip, scene, settings, listener)
    if monkeypatch is not None:
        monkeypatch.undo()
    return latents.segments, len(calls)


@pytest.mark.parametrize(
    ("settings", "passes", "contexts"),
    [({"steps": 6, "cfg": 1.0, "solver": "euler"}, 6, 1), ({"steps": 40, "cfg": 5.0}, 80, 2)],
)
def test_a_distilled_recipe_runs_6_passes_and_upstreams_80(settings, passes, contexts, models, listener, monkeypatch):
    """And at cfg 1 not even the text without the prompt is embedded."""
    embedded = []

    def counted(self, *arguments, embed=Scail2Model.embed_context):
        embedded.append(1)
        return embed(self, *arguments)

    monkeypatch.setattr(Scail2Model, "embed_context", counted)
    _, calls = sampled(models, 2, listener, monkeypatch, **settings)
    assert (calls, len(embedded)) == (passes, contexts)


def guided_case() -> int:
    return next(i for i, case in enumerate(golden_cases("pipeline")) if case["guide"] > 1)


def test_thresholds_of_zero_change_no_bit(models, listener):
    index = guided_case()
    plain, _ = sampled(models, index, listener, steps=8)
    for step_cache in ("easycache", "magcache"):
        economy = Economy(step_cache=step_cache, threshold=0, guidance_until=1)
        same, _ = sampled(models, index, listener, steps=8, economy=economy)
        assert all(np.array_equal(a, b) for a, b in zip(plain, same, strict=True)), step_cache


def test_the_state_ends_with_its_segment(models, listener, monkeypatch, caplog):
    """Two segments of 20 steps at 0.12: each is left out by itself as a segment alone would be, 18 passes of 40."""
    index = next(i for i, case in enumerate(golden_cases("pipeline")) if case["length"] < case["frames"] == 21)
    with caplog.at_level(logging.INFO, "scail2_mlx"):
        segments, calls = sampled(
            models, index, listener, monkeypatch, steps=20, economy=Economy(step_cache="magcache", threshold=0.12)
        )
    assert len(segments) == 2
    assert calls == 18 * len(segments)
    assert caplog.messages[-1] == f"{calls} of {40 * len(segments)} passes of the model were run."


def test_leaving_out_changes_the_result_but_not_its_size(models, listener, monkeypatch):
    index = guided_case()
    plain, due = sampled(models, index, listener, monkeypatch, steps=20)
    fewer, run = sampled(
        models, index, listener, monkeypatch, steps=20, economy=Economy(step_cache="magcache", threshold=0.12)
    )
    assert (run, due) == (18, 40)
    assert fewer[0].shape == plain[0].shape
    assert np.isfinite(fewer[0]).all()
    assert not np.array_equal(fewer[0], plain[0])


def test_few_steps_are_told(models, listener):
    settings = a_sampling(steps=6, economy=Economy(step_cache="easycache"))
    scene = golden_scene(0)
    prepare_run(scene.references[:1], scene, settings, listener)
    assert [warning for warning in listener.warnings if "step cache" in warning and "6 steps" in warning]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step_cache": "teacache"}, ("'teacache'", "off, easycache, magcache")),
        ({"threshold": -0.1}, ("-0.1", "0 to 1")),
        ({"threshold": 2.0}, ("2.0", "0 to 1")),
        ({"threshold": float("nan")}, ("nan",)),
        ({"guidance_until": 0.0}, ("0.0", "above 0")),
        ({"guidance_until": 1.5}, ("1.5",)),
        ({"guidance_until": float("nan")}, ("nan",)),
    ],
)
def test_economy_of_no_sense_is_refused(values, words):
    with pytest.raises(RequestError) as caught:
        Economy(**values)
    assert all(word in str(caught.value) for word in words)


def test_the_rules_see_every_step_in_order():
    """A rule that is asked in another order would decide by another step's ratio."""
    asked = []

    class Asked:
        def must_run(self, step, x):
            asked.append(step)
            return step % 2 == 0

        def learn(self, x, v):
            pass

    velocity = CachedVelocity(lambda x, t: x, Asked())
    for step in range(5):
        velocity(mx.array([1.0]), float(step))
    assert all(b - a == 1 for a, b in itertools.pairwise([-1, *asked]))
