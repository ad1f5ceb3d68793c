"""What was encoded once is not encoded again, and nothing else is ever taken for it."""

import os
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support import GOLDENS, generate, golden_prompts, golden_scene, golden_settings

from benchmarks.attacks.stale import tensor_span
from mlx_backend.pipelines import conditioning_cache
from mlx_backend.pipelines.conditioning_cache import ConditioningCache
from mlx_backend.pipelines.picture import encode_picture
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import encode_prompts
from mlx_backend.weights.checkpoints.identity import file_identity
from mlx_backend.weights.checkpoints.snapshot import Snapshot


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def models(folder, snapshot):
    return Models.of(ModelStore(snapshot, "auto", cache=folder))


def test_a_second_run_loads_neither_encoder_and_gives_the_same_frames(folder, snapshot, listener):
    scene, settings = replace(golden_scene(2), max_frames=5), replace(golden_settings(2), steps=2)

    def run():
        return generate(models(folder, snapshot), golden_prompts(2), scene, settings, None, listener)

    first = run()
    listener.events.clear()
    second = run()
    phases = {event.phase for event in listener.events}
    assert np.array_equal(first, second)
    assert "loading dit" in phases
    assert not phases & {"loading t5_encoder", "loading clip"}


def test_only_the_prompt_that_is_new_is_encoded(folder, snapshot, listener, monkeypatch):
    plain = encode_prompts(Models.of(ModelStore(snapshot, "auto")).text_encoder, "a new prompt", "bad", listener)
    encode_prompts(models(folder, snapshot).text_encoder, "a dancer", "bad", listener)
    encoded = []
    original = __import__("mlx_backend.pipelines.text", fromlist=["encode_text"]).encode_text
    monkeypatch.setattr(
        "mlx_backend.pipelines.text.encode_text", lambda e, ids, check: encoded.extend(ids) or original(e, ids, check)
    )
    found = encode_prompts(models(folder, snapshot).text_encoder, "a new prompt", "bad", listener)
    assert len(encoded) == 1
    assert np.array_equal(found.positive, plain.positive)
    assert np.array_equal(found.negative, plain.negative)


def test_another_encoder_precision_or_picture_is_encoded_anew(folder, snapshot, listener, tmp_path):
    picture = golden_scene(2).references[0]
    other = tmp_path / "other"
    other.mkdir()
    for file in (GOLDENS / "snapshot").iterdir():
        (other / file.name).symlink_to(file)
    (other / "clip.safetensors").unlink()
    tensors = mx.load(str(GOLDENS / "snapshot" / "clip.safetensors"))
    name = next(name for name in tensors if name.endswith("pre_norm.weight"))
    mx.save_safetensors(str(other / "clip.safetensors"), tensors | {name: 2 * tensors[name]})

    first = encode_picture(models(folder, snapshot).clip, picture, (), listener)
    brighter = encode_picture(models(folder, snapshot).clip, np.clip(picture + 0.1, 0, 1), (), listener)
    another = encode_picture(models(folder, Snapshot.open(other)).clip, picture, (), listener)
    assert len(list(folder.glob("*.npy"))) == 3
    assert np.abs(first - brighter).max() > 1e-3
    assert np.abs(first - another).max() > 1e-3


@pytest.mark.parametrize("content", [b"", b"no array at all", b"\x93NUMPY\x01\x00"])
def test_a_damaged_entry_is_made_again(content, folder, snapshot, listener):
    picture = golden_scene(2).references[0]
    first = encode_picture(models(folder, snapshot).clip, picture, (), listener)
    (entry,) = folder.iterdir()
    entry.write_bytes(content)
    assert np.array_equal(encode_picture(models(folder, snapshot).clip, picture, (), listener), first)
    assert np.array_equal(np.load(entry), first)


def test_an_entry_with_pickled_objects_is_not_opened(folder, snapshot, listener):
    folder.mkdir()
    np.save(folder / "key.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert ConditioningCache(folder).get("key") is None


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, snapshot, listener):
    (tmp_path / "file").write_text("in the way")
    picture = golden_scene(2).references[0]
    assert encode_picture(models(tmp_path / "file", snapshot).clip, picture, (), listener).shape[0] == 257


def test_the_oldest_entries_make_room(folder, monkeypatch):
    cache = ConditioningCache(folder)
    monkeypatch.setattr(conditioning_cache, "MAX_BYTES", 10_000)
    for i in range(5):
        cache.put(f"key{i}", np.full((10, 80), i, np.float32))  # 3,328 bytes each
        os.utime(folder / f"key{i}.npy", (i, i))
    assert [i for i in range(5) if cache.get(f"key{i}") is not None] == [2, 3, 4]


def test_identity_is_of_content_not_of_names_and_dates(tmp_path):
    random = np.random.default_rng(0)
    data = bytearray(random.integers(0, 256, 5 << 20, np.uint8).tobytes())
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    os.utime(tmp_path / "b", (1, 1))
    same = file_identity(tmp_path / "a")
    assert file_identity(tmp_path / "b") == same
    for start, stop in ((0, 1), (len(data) - 1, len(data)), (2 << 20, 3 << 20)):
        changed = bytes(data[:start]) + bytes(255 - b for b in data[start:stop]) + bytes(data[stop:])
        (tmp_path / "b").write_bytes(changed)
        assert file_identity(tmp_path / "b") != same
    (tmp_path / "b").write_bytes(data + b"\0")
    assert file_identity(tmp_path / "b") != same


def test_a_snapshot_that_was_trained_further_is_another(snapshot, tmp_path):
    tensors = mx.load(str(snapshot.path("t5_encoder")))
    path = tmp_path / "trained.safetensors"
    mx.save_safetensors(str(path), {name: 1.01 * array for name, array in tensors.items()})
    mx.save_safetensors(str(tmp_path / "same.safetensors"), dict(tree_flatten(tensors)))
    assert file_identity(path) != file_identity(tmp_path / "same.safetensors")


def test_a_single_tensor_that_was_replaced_makes_another_file(snapshot, tmp_path):
    """Also a small one between two samples: its signs are turned, in place, and nothing else."""
    path = tmp_path / "dit.safetensors"
    whole = snapshot.path("dit").read_bytes()
    path.write_bytes(whole)
    same = file_identity(path)
    for name in ("blocks.1.self_attn.norm_q.weight", "blocks.1.ffn.2.bias", "blocks.0.ffn.0.weight"):
        begin, end, width = tensor_span(whole, name)
        changed = bytearray(whole)
        for place in range(begin + width - 1, end, width):
            changed[place] ^= 0x80
        path.write_bytes(changed)
        assert file_identity(path) != same, name
