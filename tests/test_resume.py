"""Finished segments are kept: a stopped run goes on where it was, and never with another run's segments."""

import os
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from support import Recorder, a_sampling, generate, golden_prompts, golden_scene, golden_settings, sample_clip

from mlx_backend.interface.continuation import Continuation
from mlx_backend.interface.errors import Cancelled
from mlx_backend.interface.requests import LoraRequest
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.pipelines import finished
from mlx_backend.pipelines.picture import ClipRequest
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts, encode_prompts

INDEX = 3  # segments of 13 frames, two steps each
TWO_SEGMENTS = 21  # frames


class Told(Recorder):
    """Keeps notes too, and stops when the given segment has been sampled to this step."""

    def __init__(self, stop_at: tuple[int, int] | None = None):
        super().__init__()
        self.notes: list[str] = []
        self.stop_at = stop_at

    def note(self, message):
        self.notes.append(message)

    def check_cancelled(self):
        if self.events and (self.events[-1].segment, self.events[-1].step) == self.stop_at:
            raise Cancelled("stopped by the test")

    @property
    def resumed(self):
        return [note for note in self.notes if "made before" in note]


@pytest.fixture
def passes(monkeypatch):
    """Return a list that grows with every pass of the DiT."""
    calls = []

    def counted(self, *arguments, forward=Scail2Model.__call__):
        calls.append(1)
        return forward(self, *arguments)

    monkeypatch.setattr(Scail2Model, "__call__", counted)
    return calls


def two_segments(**changes):
    return replace(golden_scene(INDEX), max_frames=TWO_SEGMENTS, **changes)


def run(models, kept, listener=None, scene=None, settings=None, prompts=None):
    """Return the latents of the segments."""
    prompts, scene, listener = prompts or golden_prompts(INDEX), scene or two_segments(), listener or Told()
    text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, Recorder())
    clip = ClipRequest(models.clip, scene.references)
    chosen = settings or golden_settings(INDEX)
    return sample_clip(models.dit, models.vae, text, clip, scene, chosen, listener, kept).segments


def same(some, others):
    return len(some) == len(others) and all(map(np.array_equal, some, others))


@pytest.fixture(scope="module")
def whole(models):
    return run(models, None)


@pytest.fixture(scope="module")
def first_segment(models, tmp_path_factory):
    """Return what a run leaves that was stopped in the second of two segments."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Cancelled):
        run(models, folder, Told(stop_at=(2, 1)))
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def stopped(first_segment, tmp_path):
    """Return a folder of one's own with it."""
    shutil.copy(first_segment, tmp_path)
    return tmp_path


def test_a_stopped_run_goes_on_and_says_so(models, stopped, whole, passes):
    listener = Told()
    assert same(run(models, stopped, listener), whole)
    assert len(passes) == golden_settings(INDEX).passes  # of the second segment
    assert "Segment 1 was made before with the same inputs" in listener.resumed[0]
    assert "goes on at segment 2 of 2" in listener.resumed[0]


def test_frames_are_those_of_an_uninterrupted_run(models, tmp_path):
    """From prompt to frames, where the command line and the node that does all are told to keep segments."""
    case = models, golden_prompts(INDEX), two_segments(), golden_settings(INDEX), None
    listener = Told()
    made = [generate(*case, told, kept) for told, kept in ((Told(), None), (Told(), tmp_path), (listener, tmp_path))]
    assert listener.resumed
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_a_run_that_was_finished_needs_no_pass(models, tmp_path, whole, passes):
    run(models, tmp_path)
    passes.clear()
    listener = Told()
    assert same(run(models, tmp_path, listener), whole)
    assert not passes
    assert "All of this run was made before" in listener.resumed[0]


def test_nothing_is_said_without_a_folder(models):
    listener = Told(stop_at=(1, 1))
    with pytest.raises(Cancelled):
        run(models, None, listener)
    assert not listener.resumed


def other_scene(name):
    scene = two_segments()
    array = getattr(scene, name).copy()
    if name == "driving":  # the last segment's part is not looked at
        array[0, 5, 5, 0] = 1 - array[0, 5, 5, 0]
    else:  # a person that is a little larger, in colours that stay pure
        array[:, :, 1:] = array[:, :, :-1]
    return replace(scene, **{name: array})


@pytest.mark.parametrize("name", ["references", "driving", "driving_mask", "reference_masks"])
def test_other_pictures_begin_anew(models, stopped, name):
    listener = Told(stop_at=(1, 1))
    with pytest.raises(Cancelled):  # in the first segment, which is made again
        run(models, stopped, listener, scene=other_scene(name))
    assert not listener.resumed


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1234},
        {"steps": 3},
        {"cfg": 2.5},
        {"shift": 4.5},
        {"solver": "euler"},
        {"grid": "simple"},
        {"segment_length": 17},
        {"continuation": Continuation(history="latents")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_begin_anew(models, stopped, change):
    listener = Told(stop_at=(1, 1))
    with pytest.raises(Cancelled):  # in the first segment, which is made again
        run(models, stopped, listener, settings=replace(golden_settings(INDEX), **change))
    assert not listener.resumed


def test_another_prompt_begins_anew(models, stopped):
    listener = Told(stop_at=(1, 1))
    with pytest.raises(Cancelled):
        run(models, stopped, listener, prompts=Prompts(golden_prompts(INDEX).positive + " a"))
    assert not listener.resumed


def test_another_precision_of_the_same_file_is_told_apart_by_its_dtype(models, stopped, snapshot):
    """On the CPU both precisions compute in float32, so here they are the same run; the key has what is computed in."""
    listener = Told(stop_at=(2, 1))
    with pytest.raises(Cancelled):
        run(Models.of(ModelStore(snapshot, "float32")), stopped, listener)
    assert listener.resumed


def test_a_changed_model_begins_anew(models, stopped, snapshot, tmp_path_factory):
    from mlx_backend.weights.checkpoints.snapshot import Snapshot

    folder = tmp_path_factory.mktemp("changed")
    for path in snapshot.path("dit").parent.iterdir():
        os.link(path, folder / path.name) if path.name != "dit.safetensors" else None
    tensors = mx.load(str(snapshot.path("dit")))
    tensors["blocks.1.ffn.0.weight"] = tensors["blocks.1.ffn.0.weight"] * 2
    mx.save_safetensors(str(folder / "dit.safetensors"), tensors)
    listener = Told(stop_at=(1, 1))
    with pytest.raises(Cancelled):
        run(Models.of(ModelStore(Snapshot.open(folder), "auto")), stopped, listener)
    assert not listener.resumed


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_segment_is_made_again(models, stopped, whole, damage):
    path = next(stopped.iterdir())
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-5] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"not a tensor at all")
    path.write_bytes(content)
    listener = Told()
    assert same(run(models, stopped, listener), whole)
    assert not listener.resumed


def test_a_longer_clip_begins_with_the_segments_that_both_have(models, stopped, passes):
    listener = Told()
    made = run(models, stopped, listener, scene=golden_scene(INDEX))
    assert len(made) == 3
    assert "Segment 1 was made before" in listener.resumed[0]
    assert len(passes) == 2 * golden_settings(INDEX).passes
    passes.clear()
    assert same(run(models, stopped), made[:2])
    assert not passes


def test_the_oldest_go_first_when_there_are_too_many(models, tmp_path, monkeypatch):
    run(models, tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    old = tmp_path / f"old{finished.SUFFIX}"
    old.write_bytes(bytes(1000))
    os.utime(old, (1, 1))
    monkeypatch.setattr(finished, "MAX_BYTES", size)
    next(path for path in tmp_path.iterdir() if path != old).unlink()
    run(models, tmp_path)
    assert not old.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_costs_nothing_but_the_segments(models, tmp_path, whole):
    file = tmp_path / "a file"
    file.write_text("")
    assert same(run(models, file / "below"), whole)


def test_a_file_says_what_it_is(stopped):
    from safetensors import safe_open

    with safe_open(next(stopped.iterdir()), "numpy") as file:
        about = file.metadata()
    assert '"steps": 2' in about["run"]
    assert about["segment"] == "1 of 2"


def test_an_unused_lora_strength_begins_anew(models, stopped, tmp_path_factory):
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("lora") / "a.safetensors"
    prefix = "diffusion_model.blocks.0.self_attn.q"
    q = models.dit.store.get("dit", Told()).blocks[0].self_attn.q.weight.shape
    dim = q[0]
    rng = np.random.default_rng(3)
    save_file(
        {
            f"{prefix}.lora_A.weight": rng.normal(size=(4, dim)).astype(np.float32),
            f"{prefix}.lora_B.weight": rng.normal(size=(dim, 4)).astype(np.float32),
        },
        path,
    )
    with_lora = replace(models, dit=replace(models.dit, loras=(LoraRequest(path, 0.5),)))
    for strength, resumes in ((0.5, False), (0.5, True), (0.25, False)):
        listener = Told(stop_at=(2, 1))
        chosen = replace(with_lora, dit=replace(models.dit, loras=(LoraRequest(path, strength),)))
        with pytest.raises(Cancelled):
            run(chosen, stopped, listener)
        assert bool(listener.resumed) == resumes


def test_what_a_key_says_of_the_settings_stays():
    """Finished segments are found by it: with another order or name, what a user has kept would be made anew."""
    assert finished.settings_in_key(a_sampling(seed=7)) == (
        "SamplingSettings(steps=40, cfg=5.0, shift=3.0, solver='unipc', seed=7, segment_length=81, segment_overlap=5, "
        "economy=Economy(step_cache='off', threshold=0.05, guidance_until=1.0), grid='upstream', "
        "continuation=Continuation(history='pixels', anchor='off', seed='running'), pose_rope='upstream')"
    )


def test_what_a_killed_run_has_begun_goes_after_a_while(models, tmp_path):
    begun = [tmp_path / f".a{finished.SUFFIX}.{name}.part" for name in ("00", "11")]
    for path in begun:
        path.write_bytes(bytes(10))
    os.utime(begun[0], (1, 1))  # the other one may be another run's, which is at it
    with pytest.raises(Cancelled):
        run(models, tmp_path, Told(stop_at=(2, 1)))
    assert [path.exists() for path in begun] == [False, True]
