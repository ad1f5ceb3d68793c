"""LoRAs on a whole model: the same as merged weights, on dense and packed models, and gone without a trace."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file
from support import GOLDENS, generate, golden_file, golden_prompts, golden_scene, golden_settings

from mlx_backend.interface.errors import WeightsError
from mlx_backend.interface.requests import LoraRequest
from mlx_backend.models.linear import PackedLinear
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.lora import apply as lora_module

RANK, ALPHA = 4, 2.0
BAR = 1e-4  # float32 products in another order


def dense_weights():
    """The tiny DiT in float32, by official name."""
    tensors = mx.load(str(GOLDENS / "snapshot" / "dit.safetensors"))
    return {name: np.array(array.astype(mx.float32)) for name, array in tensors.items()}


def is_block_matrix(name):
    return name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name


@pytest.fixture
def lora(tmp_path):
    """A LoRA of low-rank pairs on block matrices and a stem, and of plain deltas; and what it adds, by tensor."""
    random = np.random.default_rng(3)
    file, added = {}, {}
    for name, weight in dense_weights().items():
        module = name.rpartition(".")[0]
        if is_block_matrix(name) or name == "patch_embedding_pose.weight":
            rows, inputs = weight.shape[0], int(np.prod(weight.shape[1:]))
            down = random.normal(size=(RANK, inputs)).astype(np.float32) / inputs**0.5
            up = random.normal(size=(rows, RANK)).astype(np.float32) / RANK**0.5
            file[f"diffusion_model.{module}.lora_down.weight"] = down.reshape(RANK, *weight.shape[1:])
            file[f"diffusion_model.{module}.lora_up.weight"] = up.reshape(rows, RANK, *[1] * (weight.ndim - 2))
            file[f"diffusion_model.{module}.alpha"] = np.array(ALPHA, np.float32)
            added[name] = (ALPHA / RANK * up @ down).reshape(weight.shape)
        elif ".norm" in name or name.startswith("head.head"):
            part = "diff" if name.endswith("weight") else "diff_b"
            added[name] = 0.1 * random.normal(size=weight.shape).astype(np.float32)
            file[f"diffusion_model.{module}.{part}"] = added[name]
    path = tmp_path / "lora.safetensors"
    save_file(file, path)
    return path, added


def forward(model):
    """One pass over the first golden case."""
    from mlx_backend.models.scail2 import Reference, Streams

    golden = {name[2:]: mx.array(array) for name, array in golden_file("dit").items() if name.startswith("0.")}
    streams = Streams(
        references=(Reference(golden["ref"], golden["ref_mask"][:, :1]),),
        driving=golden["pose"],
        driving_mask=golden["driving_mask"],
        replacement=False,
    )
    context = model.embed_context(golden["text"], golden["clip"][0])
    x = golden["x"]
    return np.array(model(x, 500.0, model.condition(context, x.shape[1:], streams), lambda: None))


def folder_with(tmp_path, dit, name="merged"):
    """A copy of the golden snapshot with another DiT."""
    folder = tmp_path / name
    folder.mkdir()
    for file in (GOLDENS / "snapshot").iterdir():
        if file.name != "dit.safetensors":
            (folder / file.name).symlink_to(file)
    mx.save_safetensors(str(folder / "dit.safetensors"), dit)
    return folder


def loaded(folder, loras, listener, residency="resident"):
    return ModelStore(Snapshot.open(folder), "auto").get_dit(loras, listener, residency)


def merged(added, strength):
    return {name: mx.array(w + strength * added.get(name, 0)) for name, w in dense_weights().items()}


@pytest.mark.parametrize("strength", [1.0, 0.8, -0.5])
def test_a_lora_on_dense_weights_equals_merged_weights(strength, lora, tmp_path, listener):
    path, added = lora
    float32 = folder_with(tmp_path, {n: mx.array(w) for n, w in dense_weights().items()}, "float32")
    with_lora = forward(loaded(float32, (LoraRequest(path, strength),), listener))
    expected = forward(loaded(folder_with(tmp_path, merged(added, strength)), (), listener))
    without = forward(loaded(float32, (), listener))
    assert np.abs(with_lora - expected).max() < BAR
    assert np.abs(with_lora - without).max() > 100 * BAR


@pytest.mark.parametrize("bits", [4, 8])
def test_a_lora_on_packed_weights_equals_unpacked_and_merged_weights(bits, lora, tmp_path, listener):
    path, added = lora
    packed, dense = {}, {}
    for name, weight in dense_weights().items():
        if is_block_matrix(name):
            base = name.removesuffix(".weight")
            parts = mx.quantize(mx.array(weight), group_size=64, bits=bits)
            packed |= dict(zip((name, f"{base}.scales", f"{base}.biases"), parts, strict=True))
            dense[name] = mx.dequantize(*parts, group_size=64, bits=bits) + mx.array(added[name])
        else:
            packed[name] = mx.array(weight)
            dense[name] = mx.array(weight + added.get(name, 0))
    model = loaded(folder_with(tmp_path, packed, "packed"), (LoraRequest(path),), listener)
    assert isinstance(model.blocks[0].ffn[0], PackedLinear)
    expected = forward(loaded(folder_with(tmp_path, dense), (), listener))
    assert np.abs(forward(model) - expected).max() < BAR


def test_loras_add_up_change_and_go_without_loading_anything_again(lora, tmp_path, listener, monkeypatch):
    path, _ = lora
    store = ModelStore(Snapshot.open(GOLDENS / "snapshot"), "auto")
    untouched = forward(store.get_dit((), listener))
    before = dict(tree_flatten(store.get_dit((), listener).parameters()))
    reads = []
    original = lora_module.load_lora

    def counted(*arguments):
        reads.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(lora_module, "load_lora", counted)
    model = store.get_dit((LoraRequest(path, 0.5),), listener)
    half = forward(model)
    assert store.get_dit((LoraRequest(path, 1.0),), listener) is model
    whole = forward(model)
    twice = forward(store.get_dit((LoraRequest(path, 0.5), LoraRequest(path, 0.5)), listener))
    assert len(reads) == 1
    assert np.abs(half - untouched).max() > 1e-3
    assert np.abs(whole - half).max() > 1e-3
    # the small tensors are bf16, and rounding twice differs from rounding once
    assert np.abs(twice - whole).max() < 0.1 * np.abs(whole - half).max()
    assert np.array_equal(forward(store.get_dit((), listener)), untouched)
    after = dict(tree_flatten(model.parameters()))
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]).item() for name in before)


def test_a_strength_of_zero_changes_nothing(lora, listener):
    path, _ = lora
    store = ModelStore(Snapshot.open(GOLDENS / "snapshot"), "auto")
    assert np.array_equal(
        forward(store.get_dit((), listener)), forward(store.get_dit((LoraRequest(path, 0.0),), listener))
    )


def test_a_run_uses_the_lora_of_its_handle(lora, listener):
    path, _ = lora
    store = ModelStore(Snapshot.open(GOLDENS / "snapshot"), "auto")

    def run(*loras):
        return generate(Models.of(store, loras), golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)

    plain = golden_file("pipeline")["2.frames"].astype(np.float32)
    assert np.abs(run(LoraRequest(path)) - plain).max() > 0.01
    assert np.abs(run() - plain).max() < 6e-4


def test_a_file_that_is_no_lora_is_refused_before_anything_changes(tmp_path, listener):
    store = ModelStore(Snapshot.open(GOLDENS / "snapshot"), "auto")
    untouched = forward(store.get_dit((), listener))
    wrong = tmp_path / "wrong.safetensors"
    save_file(load_file(GOLDENS / "vae.safetensors"), wrong)
    with pytest.raises(WeightsError, match=r"wrong\.safetensors"):
        store.get_dit((LoraRequest(wrong),), listener)
    assert np.array_equal(forward(store.get_dit((), listener)), untouched)
    with pytest.raises(WeightsError, match="does not exist"):
        store.get_dit((LoraRequest(tmp_path / "missing.safetensors"),), listener)
