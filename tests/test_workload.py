"""One bar and one time for a whole run: what it computes, and how events move along it."""

import sys
from dataclasses import replace

import pytest
from support import Recorder, generate, golden_prompts, golden_scene, golden_settings

from demo.pack import load_pack
from mlx_backend.interface.events import Progress
from mlx_backend.interface.workload import Course, Part, Workload
from mlx_backend.planning.planner import METAL, Job, ModelSizes, predict
from mlx_backend.planning.workload import workload

WORK = Workload(
    (
        Part("encoding the prompt", "text", 100),
        Part("sampling", "dit", 600, segment=1),
        Part("encoding the driving video", "vae", 100, segment=2),
        Part("sampling", "dit", 600, segment=2),
        Part("decoding", "vae", 200),
    ),
    flops_per_s=100.0,
)


class Watcher(Recorder):
    """Keeps what a run is said to be made of, and follows it."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def expect(self, work):
        self.work = work
        self.course = Course(work, lambda: float(len(self.events)))

    def progress(self, event):
        super().progress(event)
        self.course.follow(event)
        self.shares.append(self.course.share)


def passes(done, segment, step):
    return Progress(phase="sampling", done=done, total=12, segment=segment, segments=2, step=step, steps=6)


def course(seconds):
    times = iter(seconds)
    return Course(WORK, lambda: next(times))


def test_parts_count_by_what_they_compute():
    at = course(range(20))
    told = [
        Progress(phase="encoding the prompt", done=0, total=1),
        passes(0, 1, 0),
        passes(6, 1, 6),
        Progress(phase="encoding the driving video", done=1, total=2, segment=2, segments=2),
        passes(9, 2, 3),
    ]
    shares = []
    for event in told:
        at.follow(event)
        shares.append(at.share)
    # At the machine's rate of 100 FLOPs a second, then at 600: the first segment was done within a second.
    text, segment, vae = 1.0, 6.0, 1.0
    assert shares[:2] == [0, pytest.approx(text / (text + 2 * segment + 3 * vae))]
    fast = segment / 6
    assert shares[2:4] == [
        pytest.approx((text + fast) / (text + 2 * fast + 3 * vae)),
        pytest.approx((text + fast + vae / 2) / (text + 2 * fast + 3 * vae)),
    ]
    assert at.seconds_left == pytest.approx(fast / 2 + 2 * vae)


def test_time_is_at_least_that_until_the_largest_network_was_seen_at_work():
    at = course([0, 10, 20])
    at.follow(passes(0, 1, 0))
    assert not at.is_timed
    at.follow(passes(1, 1, 1))
    assert at.is_timed
    assert at.seconds_left == pytest.approx(11 * 10 + 3)  # eleven passes of ten seconds, the VAE at the machine's rate


def test_what_lies_between_two_parts_slows_no_network_down():
    at = course([0, 10, 500, 1000, 1010])
    at.follow(passes(0, 1, 0))
    at.follow(passes(1, 1, 1))
    at.follow(Progress(phase="loading vae", done=0, total=1))
    at.follow(passes(1, 1, 1))
    at.follow(passes(2, 1, 2))
    assert at.seconds_left == pytest.approx(10 * 10 + 3)


def test_what_was_kept_on_disk_costs_nothing():
    at = course(range(9))
    at.follow(Progress(phase="encoding the driving video", done=0, total=2, segment=2, segments=2))
    assert at.share == 0  # neither prompt nor first segment were made
    at.follow(Progress(phase="decoding", done=2, total=2, segment=2, segments=2))
    assert (at.share, at.seconds_left) == (1, 0)


def test_the_bar_never_goes_back():
    at = course(range(9))
    at.follow(passes(6, 1, 6))
    before = at.share
    at.follow(passes(0, 1, 0))  # float16 could not hold it: the segment is made again
    assert at.share == before


def test_a_run_tells_every_part_that_was_expected_and_ends_at_the_end(models):
    listener = Watcher()
    generate(models, golden_prompts(3), golden_scene(3), golden_settings(3), None, listener)
    parts = listener.work.parts
    assert {part.phase for part in parts} >= {"encoding the reference", "sampling", "decoding"}
    known = {part.phase for part in parts}
    counted = [event for event in listener.events if event.phase in known]
    missed = {part.phase for part in parts if not any(part.holds(event) for event in counted)}
    assert missed <= {"encoding the prompt", "showing the reference to CLIP"}, "which earlier runs may have kept"
    assert listener.shares == sorted(listener.shares)
    assert listener.shares[-1] == 1
    assert all(part.flops > 0 for part in parts)


def test_the_published_model_computes_most_in_its_passes():
    job = Job(width=832, height=480, frames=157, segment_length=81, segment_overlap=5)
    model, settings = ModelSizes(), replace(golden_settings(0), steps=40, cfg=5.0, segment_length=81, segment_overlap=5)
    plan = predict(model, job, METAL, "resident")
    tokens = [model.tokens(job.longest, 1)] * len(job.segments.segments)
    work = workload(plan, tokens, settings, 1e13)
    by_network = dict.fromkeys(("text", "clip", "vae", "dit"), 0.0)
    for part in work.parts:
        by_network[part.network] += part.flops
    assert all(by_network.values())
    assert by_network["dit"] > 0.9 * sum(by_network.values())
    without = workload(plan, tokens, settings, 1e13, ())
    assert {part.phase for part in without.parts} == {"sampling"}
    assert [part.segment for part in without.parts] == [1, 2]


def test_one_bar_stands_for_the_run_and_the_words_tell_the_time_of_all(monkeypatch):
    load_pack()
    host = sys.modules["scail2_mlx_pack.nodes.host"]
    bars = []

    class Bar:
        def __init__(self, total):
            self.total, self.seen = total, []
            bars.append(self)

        def update_absolute(self, value, total=None, preview=None):
            self.seen.append(value)

    monkeypatch.setitem(sys.modules, "comfy.utils", type("Utils", (), {"ProgressBar": Bar}))
    listener = host.HostListener()
    listener.expect(WORK)
    for event in (
        Progress(phase="loading dit", done=0, total=1),
        passes(0, 1, 0),
        passes(6, 1, 6),
        Progress(phase="encoding the driving video", done=1, total=2, segment=2, segments=2),
        passes(12, 2, 6),
        Progress(phase="decoding", done=4, total=4),
    ):
        listener.progress(event)
    (bar,) = bars
    assert bar.seen == sorted(bar.seen)
    assert (bar.seen[0], bar.seen[-1]) == (0, bar.total)
