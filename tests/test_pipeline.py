"""Whole runs against the golden frames, and what a run must do besides."""

import itertools
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
from support import (
    FRAMES_BAR,
    Recorder,
    generate,
    golden_cases,
    golden_file,
    golden_prompts,
    golden_scene,
    golden_settings,
)

from mlx_backend.interface.errors import Cancelled, NumericsError, RequestError
from mlx_backend.interface.segments import plan_segments
from mlx_backend.models.block import Block
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.sample import sample
from mlx_backend.pipelines.store import Models, ModelStore


@pytest.mark.parametrize("index", range(len(golden_cases("pipeline"))))
def test_frames_match_the_golden(index, models, listener):
    frames = generate(models, golden_prompts(index), golden_scene(index), golden_settings(index), None, listener)
    expected = golden_file("pipeline")[f"{index}.frames"].astype(np.float32)
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).max() < FRAMES_BAR


def test_a_run_can_be_sent_and_is_the_same_run(snapshot, listener):
    """Pickled it takes along no weights, and made elsewhere it gives the same latents."""
    models = Models.of(ModelStore(snapshot, "auto"))
    run = prepare(models, golden_prompts(1), golden_scene(1), golden_settings(1), Session(listener=listener))
    here = sample(run, Session(listener=listener))
    sent = pickle.dumps(run)
    assert len(sent) < 2 << 20  # its pictures; the weights of the DiT alone are more
    there = sample(pickle.loads(sent), Session(listener=Recorder()))
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_handles_made_in_one_thread_work_in_another(models, listener):
    """ComfyUI imports in one thread and executes in another; MLX's lazy arrays do not cross threads."""
    models.dit.store.get("dit", listener)
    models.vae.store.get("vae", listener)
    made: list[np.ndarray | BaseException] = []

    def work() -> None:
        try:
            made.append(generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            made.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert isinstance(made[0], np.ndarray), made[0]
    assert np.abs(made[0] - golden_file("pipeline")["2.frames"].astype(np.float32)).max() < FRAMES_BAR


def test_each_phase_releases_what_it_does_not_use(snapshot):
    store = ModelStore(snapshot, "auto")
    seen: dict[str, tuple[str, ...]] = {}

    class Watch(Recorder):
        def progress(self, event):
            seen[event.phase] = store.loaded

    generate(Models.of(store), golden_prompts(0), golden_scene(0), golden_settings(0), None, Watch())
    assert seen["loading clip"] == ("clip",)
    assert set(seen["sampling"]) == {"dit", "vae"}
    assert seen["decoding"] == ("vae",)


class Stopper(Recorder):
    """Cancels at the n-th look."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def check_cancelled(self):
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stopped by the test")


@pytest.mark.parametrize("after", [0, 3, 40, 150, 400])
def test_cancel_stops_anywhere_and_the_next_run_is_whole(after, snapshot, listener):
    models = Models.of(ModelStore(snapshot, "auto"))
    with pytest.raises(Cancelled):
        generate(models, golden_prompts(0), golden_scene(0), golden_settings(0), None, Stopper(after))
    frames = generate(models, golden_prompts(0), golden_scene(0), golden_settings(0), None, listener)
    assert np.abs(frames - golden_file("pipeline")["0.frames"].astype(np.float32)).max() < FRAMES_BAR


def test_cancel_is_seen_before_every_block(models, monkeypatch):
    """Between two looks at the Cancel button lies at most one block of one pass."""
    looks = Stopper(10**9)
    seen = []

    def counted(self, *arguments, forward=Block.__call__):
        seen.append(looks.left)
        return forward(self, *arguments)

    monkeypatch.setattr(Block, "__call__", counted)
    generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, looks)
    assert len(seen) == 2 * 3  # two blocks, three steps, cfg 1
    assert all(later < earlier for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize(("index", "passes"), [(0, 2 * 3), (1, 4)])
def test_a_pass_without_prompt_runs_only_with_guidance(index, passes, models, listener, monkeypatch):
    calls = []

    def counted(self, *arguments, forward=Scail2Model.__call__):
        calls.append(1)
        return forward(self, *arguments)

    monkeypatch.setattr(Scail2Model, "__call__", counted)
    generate(models, golden_prompts(index), golden_scene(index), golden_settings(index), None, listener)
    assert len(calls) == passes


def test_nan_stops_the_run_at_its_step(models, listener, monkeypatch):
    calls = []

    def broken_at_the_second(self, x, t, *arguments, forward=Scail2Model.__call__):
        calls.append(t)
        out = forward(self, x, t, *arguments)
        return out * float("nan") if len(calls) == 2 else out

    monkeypatch.setattr(Scail2Model, "__call__", broken_at_the_second)
    with pytest.raises(NumericsError, match="step 2 of 4"):
        generate(models, golden_prompts(1), golden_scene(1), golden_settings(1), None, listener)
    assert len(calls) == 2


def test_text_features_of_another_model_are_refused(models, listener):
    from support import sample_clip

    from mlx_backend.pipelines.picture import ClipRequest
    from mlx_backend.pipelines.text import TextFeatures

    scene = golden_scene(0)
    foreign = TextFeatures(np.zeros((3, 4096), np.float32), np.zeros((1, 4096), np.float32))
    clip = ClipRequest(models.clip, scene.references)
    with pytest.raises(RequestError, match="4096 wide"):
        sample_clip(models.dit, models.vae, foreign, clip, scene, golden_settings(0), listener)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (1, [(0, 1, 0)]),
        (3, [(0, 5, 0)]),
        (9, [(0, 9, 0)]),
        (13, [(0, 13, 0)]),
        (14, [(0, 13, 0), (8, 9, 5)]),
        (21, [(0, 13, 0), (8, 13, 5)]),
        (24, [(0, 13, 0), (8, 13, 5), (16, 9, 5)]),
    ],
)
def test_segments_cover_every_frame(frames, expected):
    plan = plan_segments(frames, 13, 5)
    assert [(s.start, s.frames, s.history) for s in plan.segments] == expected
    covered = plan.segments[0].frames + sum(s.frames - s.history for s in plan.segments[1:])
    assert covered >= frames
    assert covered - frames < 4


@pytest.mark.parametrize(("length", "overlap"), [(12, 5), (13, 4), (13, 13), (0, 1), (13, 0)])
def test_impossible_segments_are_refused(length, overlap):
    with pytest.raises(RequestError):
        plan_segments(30, length, overlap)


def test_length_rate_and_segments_are_told_before_the_first_pass(models):
    class Notes(Recorder):
        def note(self, message):
            told.append(message)

    told: list[str] = []
    scene = replace(golden_scene(3), fps=24.0)
    listener = Notes()
    generate(models, golden_prompts(3), scene, golden_settings(3), None, listener)
    assert "24 frames, 1.00 s at 24 fps, in 3 segments that share 5 frames each." in told
    assert any("has 24 frames per second, and SCAIL-2 was trained on 16" in warning for warning in listener.warnings)
    at_16 = Notes()
    generate(models, golden_prompts(0), golden_scene(0), golden_settings(0), None, at_16)
    assert not any("frames per second" in warning for warning in at_16.warnings)


def test_progress_counts_the_passes_of_all_segments(models):
    listener = Recorder()
    generate(models, golden_prompts(3), golden_scene(3), golden_settings(3), None, listener)
    steps = [event for event in listener.events if event.phase == "sampling"]
    per_step = golden_settings(3).passes // 2
    assert {event.total for event in steps} == {3 * 2 * per_step}  # segments, steps
    assert [event.done for event in steps if event.segment == 2] == list(range(2 * per_step, 4 * per_step + 1))
    finished = [(event.segment, event.step, event.done) for event in steps if event.done % per_step == 0]
    assert finished == [(s, i, ((s - 1) * 2 + i) * per_step) for s in (1, 2, 3) for i in (0, 1, 2)]
    decoded = [event for event in listener.events if event.phase == "decoding"]
    assert decoded[-1].done == decoded[-1].total == 4 + 4 + 3  # latent frames
    phases = [event.phase for event in listener.events]
    assert (
        phases.index("encoding the reference") < phases.index("encoding the driving video") < phases.index("sampling")
    )
