"""What can be watched while a run works: previews, progress, words for both."""

import itertools
import sys
import types

import mlx.core as mx
import numpy as np
import pytest
import torch
from support import Recorder, generate, golden_prompts, golden_scene, golden_settings

from demo.pack import load_pack
from mlx_backend.interface.events import Progress
from mlx_backend.interface.tiling import Tiling
from mlx_backend.models.conditioning import Known
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.pipelines.reports import StepReport
from mlx_backend.sampling.loop import denoise
from mlx_backend.sampling.solvers import make_solver


class Watcher(Recorder):
    """Wants previews, and keeps them."""

    wants_preview = True

    def __init__(self):
        super().__init__()
        self.latents = []

    def preview(self, latent):
        self.latents.append(latent)


def test_previews_change_nothing_and_there_is_one_for_each_step_and_segment(models):
    plain, watched = Recorder(), Watcher()
    case = golden_prompts(3), golden_scene(3), golden_settings(3)
    frames = [generate(models, *case, None, listener) for listener in (plain, watched)]
    assert np.array_equal(*frames)
    made = [latent.shape[1] for latent in watched.latents]
    assert made == [4, 4, 4, 4, 4, 6, 3, 3, 7]  # two steps of a segment, then the finished ones joined: 4 + 2 + 1
    for joined, last in (
        (watched.latents[2], watched.latents[1]),
        (watched.latents[5][:, 4:], watched.latents[4][:, 2:]),
    ):
        assert np.allclose(joined, last, atol=1e-5)  # the last step's estimate is the result, up to its rounding
    assert {latent.dtype for latent in watched.latents} == {np.dtype(np.float32)}
    assert all(latent.shape[0] == 16 and latent.ndim == 4 and np.isfinite(latent).all() for latent in watched.latents)


@pytest.mark.parametrize("solver", ["euler", "dpm++", "unipc"])
def test_the_estimate_of_a_model_that_knows_the_picture_is_the_picture(solver):
    """v = (x - picture) / sigma, of which x - sigma v is the picture at every step; known frames are as they are."""
    rng = np.random.default_rng(0)
    picture, noise, known = (mx.array(rng.normal(size=(16, 3, 4, 4)).astype(np.float32)) for _ in range(3))
    chosen = make_solver(solver, 4, 3.0)
    sigmas = iter(chosen.schedule.sigmas)
    mask = mx.arange(3)[None, :, None, None] < 1
    seen = []

    def velocity(x, t):
        return (x - picture) / next(sigmas)

    denoise(velocity, chosen, noise, Known(mask, known), lambda i, estimate: seen.append(np.array(estimate())))
    assert len(seen) == 4
    for estimate in seen:
        assert np.array_equal(estimate[:, 0], np.array(known)[:, 0])
        # a division and a product in float32, of numbers up to 4
        assert np.abs(estimate[:, 1:] - np.array(picture)[:, 1:]).max() < 1e-5


def test_an_estimate_that_nobody_wants_is_not_computed():
    report = StepReport(listener=Recorder(), steps=1, per_step=1, segment=0, segments=1)
    report(0, lambda: pytest.fail("it was computed"))


@pytest.fixture
def pack():
    load_pack()
    return {name: sys.modules[f"scail2_mlx_pack.nodes.{name}"] for name in ("host", "preview", "status")}


class Bar:
    """ComfyUI's ProgressBar, as far as it is used."""

    made: list["Bar"]

    def __init__(self, total):
        self.total, self.current, self.shown = total, 0, []
        Bar.made.append(self)

    def update_absolute(self, value, total=None, preview=None):
        self.current, self.total = value, total
        self.shown.append((value, total, preview))


@pytest.fixture
def program(monkeypatch):
    """ComfyUI's modules that previews touch, with a previewer that returns what it was given."""
    Bar.made = []
    core = type("Core", (), {"decode_latent_to_preview_image": lambda self, kind, x0: (kind, x0, 512)})
    core.__module__ = "latent_preview"
    program = types.SimpleNamespace(opened=[], previewer=core())

    def get_previewer(device, latent_format):
        program.opened.append((device, latent_format))
        if isinstance(program.previewer, Exception):
            raise program.previewer
        return program.previewer

    monkeypatch.setitem(sys.modules, "latent_preview", types.SimpleNamespace(get_previewer=get_previewer))
    monkeypatch.setitem(sys.modules, "comfy.latent_formats", types.SimpleNamespace(Wan21=lambda: "Wan21"))
    monkeypatch.setitem(sys.modules, "comfy.utils", types.SimpleNamespace(ProgressBar=Bar))
    return program


LATENT = np.arange(16 * 5 * 2 * 3, dtype=np.float32).reshape(16, 5, 2, 3)


def sampling(done, total=12, **others):
    return Progress(phase="sampling", done=done, total=total, **others)


def test_core_shows_the_middle_frame_at_the_place_of_the_bar(pack, program):
    listener = pack["host"].HostListener()
    assert listener.wants_preview
    listener.progress(sampling(3))
    listener.preview(LATENT)
    (bar,) = Bar.made
    assert bar.shown[0] == (3, 12, None)
    value, total, (kind, shown, side) = bar.shown[1]
    assert (value, total, kind, side) == (3, 12, "JPEG", 512)
    assert torch.equal(shown[0, :, 0], torch.from_numpy(LATENT[:, 2]))  # core's own take [0, :, 0]
    assert [str(device) for device, _ in program.opened] == ["cpu"]


def test_every_phase_has_a_bar_of_its_own(pack, program):
    """ComfyUI's ProgressBar drops values below the last one that it sent, and phases count different things."""
    listener = pack["host"].HostListener()
    listener.progress(Progress(phase="encoding the driving video", done=21, total=21))
    listener.progress(sampling(0))
    listener.progress(sampling(1))
    assert [bar.shown for bar in Bar.made] == [[(21, 21, None)], [(0, 12, None), (1, 12, None)]]


def test_a_previewer_of_another_pack_gets_every_frame_and_may_send_them_itself(pack, program):
    """VideoHelperSuite's returns None, and sends the frames; it says once how many there are."""
    seen = []
    other = type("Other", (), {"decode_latent_to_preview_image": lambda self, kind, x0: seen.append(x0)})
    program.previewer = other()
    listener = pack["host"].HostListener()
    assert listener.wants_preview
    listener.progress(sampling(1))
    for latent in (LATENT, LATENT, LATENT[:, :3]):
        listener.preview(latent)
    assert [tuple(x0.shape) for x0 in seen] == [(1, 16, 5, 2, 3)] * 2 + [(1, 16, 3, 2, 3)]
    assert torch.equal(seen[0][0], torch.from_numpy(LATENT))
    assert len(program.opened) == 2  # for 5 frames, and for 3
    assert Bar.made[0].shown == [(1, 12, None)]


@pytest.mark.parametrize("broken", ["none", "open", "show"])
def test_without_a_previewer_there_are_none_and_a_broken_one_costs_no_run(broken, pack, program, caplog):
    class Broken:
        def decode_latent_to_preview_image(self, kind, x0):
            raise ValueError("no such thing")

    program.previewer = {"none": None, "open": ValueError("no such thing"), "show": Broken()}[broken]
    listener = pack["host"].HostListener()
    assert listener.wants_preview == (broken == "show")
    listener.progress(sampling(1))
    listener.preview(LATENT)
    listener.preview(LATENT[:, :3])
    assert not listener.wants_preview
    assert caplog.text.count("Previews are off for this run: no such thing.") == (broken != "none")
    assert Bar.made[0].shown == [(1, 12, None)]


def test_outside_comfyui_there_are_no_previews(pack, monkeypatch):
    monkeypatch.delitem(sys.modules, "latent_preview", raising=False)
    listener = pack["host"].HostListener()
    assert not listener.wants_preview
    listener.preview(LATENT)


def test_words_say_where_a_run_is_and_what_is_left(pack):
    times = iter([0.0, 10.0, 12.0, 42.0, 72.0, 300.0, 500.0, 530.0])
    status = pack["status"].Status(lambda: next(times))
    segment = {"segments": 2, "steps": 2}
    lines = [
        status.line(Progress(phase="loading dit", done=0, total=1)),
        status.line(sampling(0, 4, segment=1, step=0, **segment)),
        status.line(sampling(1, 4, segment=1, step=1, **segment)),
        status.line(sampling(2, 4, segment=1, step=2, **segment)),
        status.line(Progress(phase="encoding the driving video", done=1, total=4, segment=2, segments=2)),
        status.line(sampling(2, 4, segment=2, step=0, **segment)),
        status.line(sampling(3, 4, segment=2, step=1, **segment)),
    ]
    assert lines == [
        "loading dit (10 s so far)",
        "sampling, segment 1/2, step 1/2 (12 s so far)",
        "sampling, segment 1/2, step 2/2, about 2 min to go (42 s so far)",  # three passes of 30 s
        "sampling, segment 1/2, step 2/2, about 60 s to go (72 s so far)",
        "encoding the driving video, segment 2/2, 25% (5 min so far)",
        "sampling, segment 2/2, step 1/2, about 60 s to go (8 min so far)",  # the 428 s between count for nothing
        "sampling, segment 2/2, step 2/2, about 30 s to go (9 min so far)",
    ]


def test_the_text_under_the_node_is_not_sent_more_often_than_it_is_read(pack, monkeypatch):
    shown = []
    instance = types.SimpleNamespace(send_progress_text=lambda text, node: shown.append(text.splitlines()))
    monkeypatch.setitem(
        sys.modules, "server", types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    )
    context = types.SimpleNamespace(node_id="7")
    monkeypatch.setitem(
        sys.modules, "comfy_execution.utils", types.SimpleNamespace(get_executing_context=lambda: context)
    )
    now = itertools.count(0, 0.01)
    listener = pack["host"].HostListener(lambda: next(now))
    listener.note("About 3 minutes.")
    for done in range(101):
        listener.progress(Progress(phase="downloading vae.safetensors", done=done, total=100))
    assert all(lines[-1] == "About 3 minutes." for lines in shown)
    firsts = [lines[0] for lines in shown[1:]]
    assert "0%" in firsts[0]
    assert "100%" in firsts[-1]
    # three looks at the clock an event, a text at least half a second after the one before, the first and the last
    assert 4 <= len(firsts) <= 101 * 0.04 / 0.5 + 3


@pytest.mark.parametrize("tiling", [None, Tiling(128, 16)])
def test_encoding_tells_the_share_that_is_done(tiling, models, listener):
    vae = models.vae.store.get("vae", listener)
    assert isinstance(vae, WanVAE21)
    shares = []
    pixels = mx.zeros((9, 192, 64, 3))
    vae.encode(pixels, tiling=tiling, tell=shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == 1
    assert len(shares) % 9 == 0
