"""Streamed blocks: the same numbers as resident ones, the memory of two blocks, nothing left behind."""

import json
import threading

import mlx.core as mx
import numpy as np
import pytest
import test_formats as formats
import test_gguf_file as ggufs
import torch
from mlx.utils import tree_flatten
from safetensors.numpy import save_file
from support import GOLDENS, Recorder, generate, golden_prompts, golden_scene, golden_settings
from test_lora import folder_with, forward, lora  # noqa: F401 - a fixture

from mlx_backend.conditioning.text import encode_text
from mlx_backend.interface.errors import Cancelled, WeightsError
from mlx_backend.interface.requests import LoraRequest
from mlx_backend.interface.sizes import Scail2Config, UMT5Config
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints.components import fitting, load_component
from mlx_backend.weights.checkpoints.convert import ConvertOptions, convert
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.checkpoints.offload import BlockReader
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.formats.sources import open_tensors, read_rows


def store(folder, residency):
    return ModelStore(Snapshot.open(folder), "auto", residency)


def dit(folder, residency, loras=()):
    return store(folder, residency).get_dit(loras, Recorder(), residency)


@pytest.fixture(params=["bfloat16", "float32", "q4", "q8"])
def folder(request, tmp_path, snapshot):
    """The golden snapshot, with its DiT and text encoder stored in several ways."""
    options = {
        "bfloat16": ConvertOptions(),
        "float32": ConvertOptions(dtype="float32"),
        "q4": ConvertOptions(bits=4, text_encoder_bits=4),
        "q8": ConvertOptions(bits=8, text_encoder_bits=8),
    }[request.param]
    convert(snapshot, tmp_path / "stored", options, Recorder())
    return tmp_path / "stored"


def test_streamed_blocks_give_the_same_numbers_bit_for_bit(folder):
    streamed = dit(folder, "streamed")
    expected = forward(dit(folder, "resident"))
    assert np.array_equal(forward(streamed), expected)
    assert np.array_equal(forward(streamed), expected), "the second pass reads the blocks again"


def test_a_streamed_text_encoder_gives_the_same_numbers_bit_for_bit(folder):
    prompts = [[5, 9, 3, 1], [7, 1]]
    kept, streamed = (
        load_component(fitting(Snapshot.open(folder), "t5_encoder", "auto"), lambda: None, residency)
        for residency in ("resident", "streamed")
    )
    expected = encode_text(kept, prompts, lambda: None)
    found = encode_text(streamed, prompts, lambda: None)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_streamed_run_equals_a_resident_one(snapshot, listener):
    models = Models.of(ModelStore(snapshot, "auto", "streamed"))
    frames = generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    expected = generate(
        Models.of(ModelStore(snapshot, "auto", "resident")),
        golden_prompts(2),
        golden_scene(2),
        golden_settings(2),
        None,
        listener,
    )
    assert np.array_equal(frames, expected)


def test_loras_on_streamed_blocks_give_the_same_numbers_bit_for_bit(folder, lora):  # noqa: F811
    path, _ = lora
    requests = (LoraRequest(path, 0.7), LoraRequest(path, -0.2))
    streamed = store(folder, "streamed")
    without = forward(streamed.get_dit((), Recorder(), "streamed"))
    found = forward(streamed.get_dit(requests, Recorder(), "streamed"))
    assert np.array_equal(found, forward(dit(folder, "resident", requests)))
    assert np.abs(found - without).max() > 1e-2
    assert np.array_equal(forward(streamed.get_dit((), Recorder(), "streamed")), without), "the LoRAs are gone again"


def test_dora_on_streamed_blocks_reads_the_weight_that_it_needs(folder, tmp_path):
    random = np.random.default_rng(5)
    weight = mx.load(str(GOLDENS / "snapshot" / "dit.safetensors"))["blocks.1.ffn.2.weight"]
    rows, inputs = weight.shape
    prefix = "diffusion_model.blocks.1.ffn.2"
    file = {
        f"{prefix}.lora_down.weight": random.normal(size=(4, inputs)).astype(np.float32) / 10,
        f"{prefix}.lora_up.weight": random.normal(size=(rows, 4)).astype(np.float32) / 10,
        f"{prefix}.dora_scale": 1 + random.random((rows, 1)).astype(np.float32),
    }
    save_file(file, tmp_path / "dora.safetensors")
    request = (LoraRequest(tmp_path / "dora.safetensors"),)
    found = forward(dit(folder, "streamed", request))
    assert np.array_equal(found, forward(dit(folder, "resident", request)))
    assert np.abs(found - forward(dit(folder, "streamed"))).max() > 1e-2


SIZES = {
    "dim": 512, "ffn_dim": 2048, "freq_dim": 64, "num_heads": 4, "in_dim": 20, "pose_dim": 20, "mask_dim": 28,
    "out_dim": 16, "text_dim": 64, "clip_dim": 160,
}  # fmt: skip


@pytest.fixture
def deep(tmp_path):
    """Return a snapshot of so many layers, the bytes of one block (about 17 MB) and of what is in none."""

    def make(layers):
        model = Scail2Model(Scail2Config(num_layers=layers, **SIZES))
        mx.random.seed(0)
        tensors = {n: 0.05 * mx.random.normal(a.shape) for n, a in tree_flatten(model.parameters())}
        made = folder_with(tmp_path, tensors, f"deep{layers}")
        (made / "config.json").unlink()
        (made / "config.json").write_text(json.dumps(dit_settings(model.config)))
        sizes = {n: a.nbytes for n, a in tensors.items()}
        block = sum(size for n, size in sizes.items() if n.startswith("blocks.0."))
        return made, block, sum(sizes.values()) - layers * block

    return make


def peak_of_a_pass(model):
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    forward_of(model)
    return before, mx.get_peak_memory()


def forward_of(model, check=lambda: None):
    from mlx_backend.models.scail2 import Reference, Streams

    latent = mx.ones((16, 2, 8, 8))
    streams = Streams(
        references=(Reference(latent[:, :1], None),),
        driving=mx.ones((16, 2, 4, 4)),
        driving_mask=None,
        replacement=False,
    )
    context = model.embed_context(mx.ones((4, model.config.text_dim)), mx.ones((257, model.config.clip_dim)))
    out = model(latent, 500.0, model.condition(context, latent.shape[1:], streams), check)
    mx.eval(out)
    return out


def test_memory_is_that_of_two_blocks_whatever_the_depth(deep):
    peaks = {}
    for layers in (3, 9):
        folder, block, rest = deep(layers)
        others = mx.get_active_memory()
        model = dit(folder, "streamed")
        before, peak = peak_of_a_pass(model)
        peaks[layers] = peak - before
        assert before < others + rest + 1e5, "the blocks are not in memory"
        # two blocks, and 56 tokens, 257 CLIP tokens and 512 text tokens of 512 channels with their temporaries
        assert peak - before < 2 * block + 12e6
        assert mx.get_active_memory() < before + 1e6, "nothing stays"
    assert peaks[9] < 1.02 * peaks[3]


def test_the_text_encoders_words_stay_in_the_file(tmp_path):
    config = UMT5Config(vocab_size=40000, dim=128, dim_attn=128, dim_ffn=256, num_heads=4, num_layers=2, num_buckets=32)
    model = UMT5Encoder(config)
    tensors = {name: 0.05 * mx.random.normal(array.shape) for name, array in tree_flatten(model.parameters())}
    path = tmp_path / "t5_encoder.safetensors"
    mx.save_safetensors(str(path), tensors)
    words = tensors.pop("token_embedding.weight")
    del tensors
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    fitted = fitting(Snapshot({"t5_encoder": path}, path, {}), "t5_encoder", "auto")
    encoder = load_component(fitted, lambda: None, "streamed")
    ids = [3, 39999, 17, 1]
    found = encoder.token_embedding(mx.array(ids))
    encode_text(encoder, [ids], lambda: None)
    assert mx.get_peak_memory() - before < words.nbytes / 4
    assert mx.array_equal(found, words[mx.array(ids)]).item()


def test_a_cancelled_pass_leaves_no_block_behind_and_the_next_is_whole(deep):
    folder, block, _ = deep(3)
    model = dit(folder, "streamed")
    expected = forward_of(model)
    before = mx.get_active_memory()
    calls = []

    def cancel():
        calls.append(0)
        if len(calls) == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        forward_of(model, cancel)
    mx.clear_cache()
    assert mx.get_active_memory() < before + block / 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scail2-weights")]
    assert mx.array_equal(forward_of(model), expected).item()


def test_a_file_that_goes_away_is_told(deep):
    folder, _, _ = deep(3)
    model = dit(folder, "streamed")
    (folder / "dit.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"dit\.safetensors: tensor 'blocks\.0\..*' cannot be read any more"):
        forward_of(model)


@pytest.mark.parametrize("residency", ["resident", "streamed"])
def test_a_model_made_in_one_thread_works_in_another(residency, snapshot, lora, listener):  # noqa: F811
    """ComfyUI imports in one thread and executes in others; MLX's lazy arrays do not cross threads."""
    models = Models.of(ModelStore(snapshot, "auto", residency), (LoraRequest(lora[0], 0.5),))
    dit = models.dit.store.get_dit(models.dit.loras, listener, residency)
    for component in ("vae", "t5_encoder", "clip"):
        models.dit.store.get(component, listener)
    made = []

    def work():
        try:
            mx.eval(dit.parameters())
            made.append(forward(dit))
            made.append(generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            made.append(error)

    for _ in range(2):  # each time in a thread of its own; the first one has died by the second
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    assert all(isinstance(result, np.ndarray) for result in made), made
    assert np.array_equal(made[1], made[3])


@pytest.mark.parametrize("kind", ["safetensors", "sharded", "pth"])
def test_rows_of_a_table_are_those_of_the_whole(kind, tmp_path):
    table = torch.randn(50, 32).to(torch.bfloat16)
    file = open_tensors(formats.write({"table": table, "other": torch.zeros(3)}, kind, tmp_path))
    wanted = np.array([3, 0, 3, 49])
    assert np.array_equal(read_rows(file, "table", wanted), table.view(torch.uint16).numpy()[wanted])


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K"])
def test_rows_of_a_quantised_table_are_those_of_the_whole(name, tmp_path):
    path = ggufs.write(tmp_path / "table.gguf", {"table": (name, ggufs.random_blocks(name, 50, 2))})
    file = open_tensors(path)
    wanted = np.array([3, 0, 3, 49])
    assert np.array_equal(read_rows(file, "table", wanted), file.read("table")[wanted])


def test_streamed_blocks_hold_nothing_before_they_are_due(snapshot):
    model = load_component(fitting(snapshot, "dit", "auto"), lambda: None, "streamed")
    assert isinstance(model.supply, BlockReader)
    assert not any(array.any().item() for _, array in tree_flatten(model.blocks[0].parameters()))
