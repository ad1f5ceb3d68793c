"""A run is planned from the headers of its files and from the memory allowed, before anything is loaded."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from support import a_job, generate, golden_prompts, golden_scene, golden_settings

from mlx_backend.interface.chunks import chunk_bounds, dispatch_limit
from mlx_backend.interface.conversion import ConvertOptions
from mlx_backend.interface.errors import RequestError
from mlx_backend.members.scail2 import MEMBER
from mlx_backend.members.scail2.prepared import prepare_run
from mlx_backend.pipelines import planning
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.planning.planner import choose
from mlx_backend.runtime.probe import Rate
from mlx_backend.weights.checkpoints.components import fitting, part_sizes
from mlx_backend.weights.checkpoints.convert import convert
from mlx_backend.weights.checkpoints.snapshot import Snapshot

SCENE, SETTINGS = replace(golden_scene(2), max_frames=5), replace(golden_settings(2), steps=1)


@pytest.fixture
def how(snapshot, listener, monkeypatch):
    """Return the plan of the golden run for so many bytes of memory."""

    def make(memory=0, residency="auto"):
        models = Models.of(ModelStore(snapshot, "auto", residency, memory=memory))
        run = prepare_run(SCENE.references[:1], SCENE, SETTINGS, listener)
        return planning.plan_run(models.dit, models.vae, models.text_encoder, models.clip, run)

    return make


def test_the_model_stays_in_memory_where_it_fits_and_is_streamed_where_not(how):
    resident, streamed = how(residency="resident"), how(residency="streamed")
    assert streamed.needed_bytes <= resident.needed_bytes
    assert how().residency == "resident"
    between = (streamed.phases["denoise"].bytes + resident.phases["denoise"].bytes) / 2
    assert streamed.phases["denoise"].bytes < between


def test_full_size_weights_are_streamed_on_a_small_mac_and_packed_ones_stay():
    """Sizes as published: nothing of it is loaded."""
    from mlx_backend.planning.planner import ModelSizes
    from mlx_backend.planning.storage import Storage

    job = a_job(width=832, height=480, frames=81)
    dense, packed = ModelSizes(), ModelSizes(dit_storage=Storage("bfloat16", 4, 64))
    assert choose(dense, job, 12 * 10**9).residency == "streamed"
    assert choose(dense, job, 96 * 10**9).residency == "resident"
    assert choose(packed, job, 24 * 10**9).residency == "resident"


def test_a_run_that_cannot_fit_is_refused_with_numbers_before_anything_is_loaded(snapshot, listener):
    store = ModelStore(snapshot, "auto", memory=100_000_000)
    with pytest.raises(RequestError, match=r"would need \d+\.\d GB .* but 0\.1 GB may be used: "):
        generate(Models.of(store), golden_prompts(2), SCENE, SETTINGS, None, listener)
    assert store.loaded == ()
    assert not listener.events


def test_what_the_user_chose_is_kept(how):
    assert how(residency="streamed").residency == "streamed"
    assert how(residency="resident").residency == "resident"


def test_the_plan_reaches_the_model(snapshot, listener, monkeypatch):
    """A planned "streamed" is what the DiT becomes, and the frames stay the same."""
    plain = generate(Models.of(ModelStore(snapshot, "auto")), golden_prompts(2), SCENE, SETTINGS, None, listener)
    asked = []
    original = ModelStore.get_dit

    def watched(self, loras, listener, residency="resident"):
        asked.append(residency)
        return original(self, loras, listener, residency)

    monkeypatch.setattr(ModelStore, "get_dit", watched)
    monkeypatch.setattr(planning, "choose", lambda *given, **_: choose(*given, residency="streamed"))
    streamed = generate(Models.of(ModelStore(snapshot, "auto")), golden_prompts(2), SCENE, SETTINGS, None, listener)
    assert asked == ["streamed"]
    assert np.array_equal(plain, streamed)


def test_tiles_are_taken_where_whole_frames_do_not_fit(snapshot, listener, monkeypatch):
    from support import sample_clip

    from mlx_backend.pipelines.picture import ClipRequest
    from mlx_backend.pipelines.text import encode_prompts

    models = Models.of(ModelStore(snapshot, "auto"))
    scene = replace(SCENE, width=320, height=192, follow_orientation=False)
    text = encode_prompts(models.text_encoder, "", "", listener)
    clip = ClipRequest(models.clip, scene.references[:1])
    latents = sample_clip(models.dit, models.vae, text, clip, scene, SETTINGS, listener)
    assert planning.decode_tiling(models.vae, latents) is None
    monkeypatch.setattr(planning, "budget_of", lambda handle: 0)
    smallest = planning.decode_tiling(models.vae, latents)
    assert smallest is not None
    assert smallest.size == 128


def test_the_forecast_says_how_long_and_in_what_memory(how, snapshot, listener, monkeypatch):
    class Probe:
        sentence = "A machine."
        rate = Rate(1e12, "float32", 768)

        @staticmethod
        def forecast(flops, passes, beside):
            return f"{passes} passes of {flops / 1e9:.1f} GFLOP, {beside / 1e9:.1f} beside."

    notes = []
    monkeypatch.setattr(listener, "note", notes.append)
    monkeypatch.setattr(planning, "machine_probe", Probe)
    run = prepare_run(SCENE.references[:1], SCENE, SETTINGS, listener)
    planning.forecast(how(), MEMBER.tokens_of(run), replace(SETTINGS, steps=4, cfg=2.0), 8_000_000_000, listener)
    (note,) = notes
    assert note.startswith("A machine. The model runs with all of it in memory, in about 0.")
    assert "of 8.0 GB. 8 passes of " in note


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ConvertOptions(), ("bfloat16", 0)),
        (ConvertOptions(dtype="float32"), ("float32", 0)),
        (ConvertOptions(bits=8, group_size=32), ("bfloat16", 8, 32)),
        (ConvertOptions(bits=4), ("bfloat16", 4, 64)),
    ],
)
def test_storage_is_read_from_the_header(options, expected, snapshot, tmp_path, listener):
    convert(snapshot, tmp_path / "made", options, listener)
    sizes = part_sizes(fitting(Snapshot.open(tmp_path / "made"), "dit", "auto"))
    found = (sizes.storage.dtype, sizes.storage.bits, sizes.storage.group_size)
    assert found[: len(expected)] == expected
    assert sizes.compute == "float32", "on the CPU"
    assert sizes.config.num_layers == 2


def test_mixed_bits_count_as_their_mean(snapshot, tmp_path, listener):
    convert(snapshot, tmp_path / "made", ConvertOptions(mixed=True), listener)
    assert 4 < part_sizes(fitting(Snapshot.open(tmp_path / "made"), "dit", "auto")).storage.bits < 8


def test_what_is_restored_counts_as_what_it_becomes(snapshot, monkeypatch):
    """On a GPU float32 weights come as bf16."""
    from mlx_backend.weights.checkpoints import components

    monkeypatch.setattr(components, "compute_dtype", lambda precision, component: None)
    sizes = part_sizes(fitting(snapshot, "dit", "auto"))
    stored = mx.load(str(snapshot.path("dit")))
    assert {array.dtype for array in stored.values()} == {mx.bfloat16}
    assert (sizes.storage.dtype, sizes.compute) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize(("rate", "limit"), [(2.6e12, 2.6e12), (4e12, 4e12), (50e12, 4e12)])
def test_a_dispatch_takes_about_a_second_at_most(rate, limit):
    assert dispatch_limit(rate) == limit
    for tokens in (42_510, 95_920):
        bounds = chunk_bounds(tokens, 5120, 40, on_gpu=True, dispatch_flops=limit)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == tokens
        assert max(4 * (b - a) * tokens * 5120 for a, b in bounds) <= 1.01 * limit
