"""Files as they lie about: 8-bit LoRAs, numbers that are none, bytes too many, LoRAs of other models."""

import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import GOLDENS, generate, golden_file, golden_prompts, golden_scene, golden_settings
from test_lora import BAR, dense_weights, folder_with, forward, loaded

from mlx_backend.interface.errors import RequestError, WeightsError
from mlx_backend.interface.machine import Allowance, chosen_memory
from mlx_backend.interface.requests import LoraRequest
from mlx_backend.pipelines.store import Models, ModelStore, check_models
from mlx_backend.weights.checkpoints.component_file import open_component
from mlx_backend.weights.checkpoints.identity import file_identity
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.lora.values import LoraValues

SOURCE = GOLDENS / "snapshot"
MODULE = "diffusion_model.blocks.0.ffn.0"
FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def matrix(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32)) / 8


def low_rank(module=MODULE):
    """Low-rank factors of a matrix of the tiny DiT, float32."""
    rows, inputs = dense_weights()["blocks.0.ffn.0.weight"].shape
    return {f"{module}.lora_down.weight": matrix(4, inputs), f"{module}.lora_up.weight": matrix(rows, 4, seed=1)}


def in_float8(tensors, dtype, scale_name=None):
    """The tensors in 8 bits, with scales under a name or none, and the numbers that they stand for."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        scale = 0.25 if scale_name else 1.0
        stored[name] = (tensor / scale).to(dtype)
        meant[name] = stored[name].float() * scale
        if scale_name:
            stored[f"{name.removesuffix('.weight')}.{scale_name}"] = torch.tensor(scale)
    return stored, meant


@pytest.mark.parametrize("scale_name", [None, "weight_scale", "scale_weight"])
@pytest.mark.parametrize("dtype", FLOAT8)
def test_a_lora_in_8_bit_floats_means_its_numbers(dtype, scale_name, tmp_path):
    delta = {"diffusion_model.blocks.1.ffn.0.diff": matrix(*dense_weights()["blocks.1.ffn.0.weight"].shape, seed=2)}
    stored, meant = in_float8(low_rank() | delta, FLOAT8[dtype], scale_name)
    save_file(stored, tmp_path / "lora.safetensors")
    values = LoraValues(tmp_path / "lora.safetensors")
    assert values.shapes == {name: tuple(tensor.shape) for name, tensor in meant.items()}
    for name, tensor in meant.items():
        assert np.array_equal(np.array(values.array(name)), tensor.numpy())  # products with a power of two are exact


def test_an_8_bit_lora_does_what_its_numbers_do(tmp_path, listener):
    stored, meant = in_float8(low_rank(), torch.float8_e4m3fn, "weight_scale")
    save_file(stored, tmp_path / "small.safetensors")
    save_file(meant, tmp_path / "wide.safetensors")
    store = ModelStore(Snapshot.open(SOURCE), "auto")
    plain = forward(store.get_dit((), listener))
    small, wide = (
        forward(store.get_dit((LoraRequest(tmp_path / f"{name}.safetensors"),), listener)) for name in ("small", "wide")
    )
    assert np.abs(small - wide).max() < BAR
    assert np.abs(wide - plain).max() > 10 * BAR


def test_codes_without_a_meaning_are_refused(tmp_path):
    tensors = {f"{MODULE}.diff": torch.ones(4, 4, dtype=torch.int8)}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match=r"lora\.safetensors.*ffn\.0\.diff' is stored as I8"):
        LoraValues(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_lora_that_holds_no_number_is_named(number, tmp_path, listener):
    tensors = low_rank()
    tensors[f"{MODULE}.lora_up.weight"][3, 1] = number
    save_file(tensors, tmp_path / "lora.safetensors")
    store = ModelStore(Snapshot.open(SOURCE), "auto")
    with pytest.raises(WeightsError, match=r"lora\.safetensors.*ffn\.0\.lora_up\.weight' holds 1 of"):
        store.get_dit((LoraRequest(tmp_path / "lora.safetensors"),), listener)


@pytest.mark.parametrize("residency", ["resident", "streamed"])
def test_weights_that_hold_no_number_are_named(residency, tmp_path, listener):
    weights = dense_weights()
    weights["blocks.1.ffn.0.weight"][2, 5] = math.nan
    import mlx.core as mx

    folder = folder_with(tmp_path, {name: mx.array(array) for name, array in weights.items()}, "damaged")
    with pytest.raises(WeightsError, match=r"dit\.safetensors.*'blocks\.1\.ffn\.0\.weight' holds 1 of"):
        forward(loaded(folder, (), listener, residency))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_number_is_a_number_and_nothing_else(dtype, tmp_path):
    """All codes of the 16-bit floats; of float32 those with 16 zeros behind, and the largest."""
    codes = torch.arange(1 << 16, dtype=torch.int32)
    every = (codes << 16).view(torch.float32) if dtype is torch.float32 else codes.to(torch.int16).view(dtype)
    finite = every[torch.isfinite(every)].contiguous()
    largest = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, 0.0], dtype=dtype)
    others = every[~torch.isfinite(every)]
    bad = {f"bad{i}.diff": torch.cat([largest, others[i : i + 1]]) for i in (0, len(others) // 2, -1 % len(others))}
    save_file({"fine.diff": finite, "large.diff": largest} | bad, tmp_path / "lora.safetensors")
    values = LoraValues(tmp_path / "lora.safetensors")
    for name in ("fine.diff", "large.diff"):
        assert values.array(name).size
    for name in bad:
        with pytest.raises(WeightsError, match=f"'{name}' holds 1 of 4"):
            values.array(name)


def test_bytes_behind_the_last_tensor_are_warned_of(tmp_path, listener, caplog):
    expected = forward(loaded(SOURCE, (), listener))
    folder = tmp_path / "padded"
    shutil.copytree(SOURCE, folder)
    with (folder / "dit.safetensors").open("ab") as file:
        file.write(b"\0" * 24)
    with caplog.at_level(logging.WARNING):
        made = forward(loaded(folder, (), listener))
    assert np.array_equal(made, expected)
    assert [
        record.getMessage() for record in caplog.records if "24 bytes behind its last tensor" in record.getMessage()
    ]


def test_a_lora_of_another_model_is_refused_by_its_header(tmp_path, listener):
    wrong = {f"{MODULE}.lora_down.weight": matrix(4, 33), f"{MODULE}.lora_up.weight": matrix(7, 4)}
    save_file(wrong, tmp_path / "other.safetensors")
    store = ModelStore(Snapshot.open(SOURCE), "auto")
    with pytest.raises(WeightsError, match=r"other\.safetensors"):
        check_models(Models.of(store, (LoraRequest(tmp_path / "other.safetensors"),)))
    assert store.loaded == ()


def test_the_node_refuses_a_lora_of_another_model(nodes, tmp_path):
    wrong = {f"{MODULE}.lora_down.weight": matrix(4, 33), f"{MODULE}.lora_up.weight": matrix(7, 4)}
    save_file(wrong, tmp_path / "other.safetensors")
    save_file(low_rank(), tmp_path / "own.safetensors")
    model, *_ = nodes["LoadScail2MLX"]({"snapshot": str(SOURCE), "precision": "auto"})
    given = {"model": model, "strength": 1.0, "allow_unknown": False}
    with pytest.raises(Exception, match=r"other\.safetensors changes nothing in this model"):
        nodes["Scail2LoraLoader"](given | {"lora": str(tmp_path / "other.safetensors")})
    (made,) = nodes["Scail2LoraLoader"](given | {"lora": str(tmp_path / "own.safetensors")})
    assert len(made.loras) == 1
    assert model.store.loaded == ()


def test_a_dangling_link_beside_the_snapshot_changes_nothing(nodes, tmp_path):  # noqa: ARG001 - the pack is loaded
    from scail2_mlx_pack.nodes.loaders import LoadScail2MLX

    folder = tmp_path / "model"
    shutil.copytree(SOURCE, folder)
    (folder / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    first = LoadScail2MLX.fingerprint_inputs(str(folder), "auto")
    assert LoadScail2MLX.fingerprint_inputs(str(folder), "auto") == first
    (tmp_path / "nowhere").write_bytes(b"there now")
    assert LoadScail2MLX.fingerprint_inputs(str(folder), "auto") != first


@pytest.mark.parametrize("gigabytes", [math.nan, math.inf, -1, 1e-9, 5000])
@pytest.mark.parametrize("setting", ["--memory", "memory_gb"])
def test_what_is_no_amount_of_memory_is_refused_by_the_name_of_its_setting(setting, gigabytes):
    with pytest.raises(RequestError, match=f"^{setting} is .* GB, but a run may take"):
        chosen_memory(gigabytes, setting)


def test_memory_that_was_set_too_small_is_to_be_raised():
    assert chosen_memory(0, "--memory") == 0
    assert chosen_memory(12.5, "--memory") == 12_500_000_000
    chosen = Allowance(10**9, is_chosen=True)
    assert "memory_gb (--memory on the command line) that allows 1 GB: raise it" in chosen.advice
    assert "machine" not in chosen.otherwise
    assert "machine" in Allowance(10**9).otherwise


def in_shards(source, folder, names, index=None):
    """Split a file's tensors over shards of these names; `index` names what lists them."""
    tensors = load_file(source)
    keys = sorted(tensors)
    parts = {name: keys[i :: len(names)] for i, name in enumerate(names)}
    for name, part in parts.items():
        save_file({key: tensors[key] for key in part}, folder / name)
    if index:
        weight_map = {key: name for name, part in parts.items() for key in part}
        (folder / index).write_text(json.dumps({"weight_map": weight_map}))


NUMBERED = "diffusion_pytorch_model{}-0000{}-of-00002{}.safetensors"
SHARDED = {
    "variant before the numbers, with an index": (".fp16", "", "diffusion_pytorch_model.safetensors.index.fp16.json"),
    "variant behind the numbers, with an index": ("", ".fp16", "diffusion_pytorch_model.safetensors.index.fp16.json"),
    "no index": ("", "", None),
    "variant and no index": (".fp16", "", None),
}


@pytest.mark.parametrize("kind", SHARDED)
def test_shards_are_found_and_joined_whatever_they_are_called(kind, tmp_path):
    before, behind, index = SHARDED[kind]
    (tmp_path / "transformer").mkdir()
    names = [NUMBERED.format(before, number, behind) for number in (1, 2)]
    in_shards(SOURCE / "dit.safetensors", tmp_path / "transformer", names, index)
    snapshot = Snapshot.assemble(tmp_path, {}, ("dit",))
    assert snapshot.path("dit") == tmp_path / "transformer" / (index or names[0])
    made, wanted = (open_component(path, "dit") for path in (snapshot.path("dit"), SOURCE / "dit.safetensors"))
    assert made.tensors == wanted.tensors
    assert all(np.array_equal(made.values(name), wanted.values(name)) for name in wanted.tensors)
    identity = file_identity(snapshot.path("dit"))
    shard = tmp_path / "transformer" / names[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert file_identity(snapshot.path("dit")) != identity


def test_a_missing_shard_is_named(tmp_path):
    names = [NUMBERED.format("", number, "") for number in (1, 2)]
    in_shards(SOURCE / "dit.safetensors", tmp_path, names)
    (tmp_path / names[1]).unlink()
    with pytest.raises(WeightsError, match="first of 2 shards, but .*00002-of-00002.safetensors is missing"):
        Snapshot.assemble(tmp_path, {}, ("dit",))


def test_a_snapshot_with_its_dit_in_shards_and_half_precision_encoders_gives_the_golden_frames(tmp_path, listener):
    """As others publish it: a bf16 DiT in shards, VAE and CLIP in fp16, beside a config.json."""
    for name in ("config.json", "tokenizer.json", "t5_encoder.safetensors"):
        shutil.copyfile(SOURCE / name, tmp_path / name)
    in_shards(
        SOURCE / "dit.safetensors",
        tmp_path,
        [f"dit-0000{number}-of-00002.safetensors" for number in (1, 2)],
        "dit.safetensors.index.json",
    )
    for name in ("vae", "clip"):
        halved = {key: tensor.half() for key, tensor in load_file(SOURCE / f"{name}.safetensors").items()}
        save_file(halved, tmp_path / f"{name}.safetensors")
    models = Models.of(ModelStore(Snapshot.open(tmp_path), "auto"))
    frames = generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    golden = golden_file("pipeline")["2.frames"].astype(np.float32)
    assert np.abs(frames - golden).max() < 0.02  # weights rounded to 11 bits


@pytest.mark.parametrize("shape", [(1, 6, 8), (6, 8), (1, 6, 8, 1), (1, 1, 6, 8)])
def test_masks_of_other_packs_mean_the_same(nodes, shape):  # noqa: ARG001 - the pack is loaded
    from scail2_mlx_pack.nodes.tensors import to_numpy

    mask = torch.arange(48.0).reshape(1, 6, 8)
    assert np.array_equal(to_numpy(mask.reshape(shape)), mask.numpy())


@pytest.mark.parametrize("shape", [(2, 6, 8, 2), (48,), (1, 1, 6, 8, 3)])
def test_what_is_no_mask_is_refused_by_its_shape(nodes, shape):  # noqa: ARG001 - the pack is loaded
    from scail2_mlx_pack.nodes.tensors import to_numpy

    with pytest.raises(Exception, match=f"has the shape .{shape[0]}.*masks .frames, height, width"):
        to_numpy(torch.zeros(shape))
