"""Files as they lie about: 8-bit LoRAs, numbers that are none, bytes too many, LoRAs of other models."""

import logging
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import GOLDENS
from test_lora import BAR, dense_weights, folder_with, forward, loaded

from mlx_backend.interface.errors import RequestError, WeightsError
from mlx_backend.interface.machine import Allowance, chosen_memory
from mlx_backend.interface.requests import LoraRequest
from mlx_backend.pipelines.store import Models, ModelStore, check_models
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


def test_large_numbers_are_numbers(tmp_path):
    """Their sum is none in float16."""
    save_file({f"{MODULE}.diff": torch.full((64, 64), 60000.0, dtype=torch.float16)}, tmp_path / "lora.safetensors")
    values = LoraValues(tmp_path / "lora.safetensors").array(f"{MODULE}.diff")
    assert float(values[0, 0].item()) == 60000


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
