"""The tiny golden model in every packed format: a run gives what the weights that the file stands for give."""

import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import GOLDENS, golden_file, golden_prompts
from test_formats import CASE, EQUAL_BAR, assert_golden, block_matrices, frames_of, in_layout, restored_frames
from test_gguf_file import K_QUANTS, TYPES, random_blocks
from test_quantised import swizzle
from test_spiece import field, piece, settings

from mlx_backend.cli.inspect import describe
from mlx_backend.interface.conversion import ConvertOptions
from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.checkpoints.component_file import open_component
from mlx_backend.weights.checkpoints.convert import convert
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.checkpoints.tokenizer import load_tokenizer
from mlx_backend.weights.formats import fp_codes
from mlx_backend.weights.formats.safetensors_file import SafetensorsFile

SOURCE = GOLDENS / "snapshot"
ROTATION = 64  # inputs that int8_convrot rotates together; 256 unless a file names another


def said(layer, **config):
    """The tensor in which ComfyUI says how a layer is quantised."""
    return {f"{layer}.comfy_quant": torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)}


def e5m2(layer, weight):
    scale = weight.abs().max() / 57344
    stored = {f"{layer}.weight": (weight / scale).to(torch.float8_e5m2), f"{layer}.weight_scale": scale.reshape(())}
    return stored | said(layer, format="float8_e5m2")


def int8(layer, weight, **config):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    stored = {f"{layer}.weight": (weight / scale).round().to(torch.int8), f"{layer}.weight_scale": scale}
    return stored | said(layer, format="int8_tensorwise", **config)


def int8_convrot(layer, weight):
    rotation = torch.from_numpy(fp_codes.rotation(ROTATION)).float()
    rotated = (weight.reshape(-1, ROTATION) @ rotation.T).reshape(weight.shape)
    return int8(layer, rotated, convrot=True, convrot_groupsize=ROTATION)


def fp8_per_row(layer, weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 448
    return {f"{layer}.weight": (weight / scale).to(torch.float8_e4m3fn), f"{layer}.weight_scale": scale}


def quanto(layer, weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    made = {f"{layer}.weight._data": (weight / scale).round().to(torch.int8), f"{layer}.weight._scale": scale}
    return made | {f"{layer}.{name}": torch.ones(()) for name in ("input_scale", "output_scale")}


def mxfp8(layer, weight):
    parts = weight.reshape(len(weight), -1, 32)
    exponents = (parts.abs().amax(dim=2) / 448).log2().ceil()
    stored = (parts / exponents.exp2()[..., None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    scale = torch.from_numpy(swizzle((exponents + 127).to(torch.uint8).numpy())).view(torch.float8_e8m0fnu)
    return {f"{layer}.weight": stored, f"{layer}.weight_scale": scale} | said(layer, format="mxfp8")


def nvfp4(layer, weight):
    parts = weight.reshape(len(weight), -1, 16)
    overall = weight.abs().max() / (448 * 6)
    scale = (parts.abs().amax(dim=2) / 6 / overall).to(torch.float8_e4m3fn)
    steps = (scale.float() * overall)[..., None]
    values = torch.from_numpy(fp_codes.e2m1_values().astype(np.float32))
    codes = ((parts / steps)[..., None] - values).abs().argmin(dim=-1).to(torch.uint8).reshape(weight.shape)
    return {
        f"{layer}.weight": codes[:, ::2] << 4 | codes[:, 1::2],
        f"{layer}.weight_scale": torch.from_numpy(swizzle(scale.view(torch.uint8).numpy())).view(torch.float8_e4m3fn),
        f"{layer}.weight_scale_2": overall.reshape(()),
    } | said(layer, format="nvfp4")


KINDS = {
    e5m2: "fp8",
    int8: "int8",
    int8_convrot: "int8_convrot",
    mxfp8: "mxfp8",
    nvfp4: "nvfp4",
    fp8_per_row: "fp8",
    quanto: "int8",
}


@pytest.mark.parametrize("quantise", KINDS)
def test_a_comfyui_file_equals_its_own_restored_weights(quantise, tmp_path, listener):
    tensors = in_layout("dit", "comfy")
    for name in block_matrices(tensors):
        tensors |= quantise(name.removesuffix(".weight"), tensors.pop(name))
    path = tmp_path / "dit.safetensors"
    save_file(tensors, path)
    assert describe(path).endswith(f"24 weights in {KINDS[quantise]}, {path.stat().st_size / 1e9:.3f} GB")
    frames = frames_of({"dit": path}, listener)
    assert np.abs(frames - restored_frames(path, tmp_path, listener)).max() < EQUAL_BAR
    assert 1e-3 < np.abs(frames - golden_file("pipeline")[f"{CASE}.frames"]).max() < 1  # quantised, yet a picture


def write_gguf(path, tensors):
    """Write tensors as converters do; one is (type name, its bytes) or float32."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, value in tensors.items():
        if isinstance(value, tuple):
            writer.add_tensor(name, value[1], raw_dtype=TYPES[value[0]])
            continue
        if value.ndim == 5:  # GGUF has four axes at most: converters flatten, and note the shape
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(value.shape))
            value = value.reshape(len(value), -1)
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", K_QUANTS)
def test_k_quants_equal_their_own_restored_weights(kind, tmp_path, listener):
    """The gguf package reads them and does not write them: the blocks hold random bits and small scales."""
    tensors = {name: tensor.numpy() for name, tensor in in_layout("dit", "official").items()}
    packed = [name for name in block_matrices(tensors) if tensors[name].shape[1] % 256 == 0]
    assert len(packed) == 22  # all but the two ffn.2, whose 320 inputs are not whole blocks
    for seed, name in enumerate(packed):
        rows, inputs = tensors[name].shape
        data = random_blocks(kind, rows, inputs // 256, seed)
        scales = data.reshape(rows * inputs // 256, -1)[:, K_QUANTS[kind]]
        scales[:] = (np.ascontiguousarray(scales).view(np.float16) * 1e-4).astype(np.float16).view(np.uint8)
        tensors[name] = (kind, data)
    path = write_gguf(tmp_path / "dit.gguf", tensors)
    frames = frames_of({"dit": path}, listener)
    assert np.isfinite(frames).all()
    assert np.abs(frames - restored_frames(path, tmp_path, listener)).max() < EQUAL_BAR


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_a_dense_gguf_gives_the_golden_frames(kind, tmp_path, listener):
    tensors = {name: tensor.numpy() for name, tensor in in_layout("dit", "official").items()}
    for name in block_matrices(tensors):
        tensors[name] = (kind, gguf.quants.quantize(tensors[name], TYPES[kind]))
    assert_golden(frames_of({"dit": write_gguf(tmp_path / "dit.gguf", tensors)}, listener))


def test_a_text_encoder_in_fp8_with_its_tokenizer_inside(tmp_path, listener):
    """As ComfyUI's umt5_xxl_fp8_e4m3fn_scaled: transformers' names, scales, and the SentencePiece model in a tensor."""
    tensors = in_layout("t5_encoder", "hf_t5")
    for name in block_matrices({f".blocks.{n}": t for n, t in tensors.items() if "block." in n}):
        name = name.removeprefix(".blocks.")
        scale = tensors[name].abs().max() / 448
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[name.removesuffix("weight") + "scale_weight"] = scale.reshape(())
    vocabulary = json.loads((SOURCE / "tokenizer.json").read_text())["model"]["vocab"]
    kinds = {0: 3, 1: 3, 2: 2}  # <pad> and </s> are control pieces, <unk> is unknown
    model = b"".join(piece(text, float(score), kinds.get(i, 1)) for i, (text, score) in enumerate(vocabulary))
    model += settings({3: 1, 35: 0}) + field(3, field(3, 1) + field(4, 1) + field(5, 1))
    tensors |= {
        "scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
        "spiece_model": torch.tensor(list(model), dtype=torch.uint8),
    }
    path = tmp_path / "umt5.safetensors"
    save_file(tensors, path)
    source = open_component(path, "t5_encoder")
    dense = {name: torch.from_numpy(np.array(source.array(name).astype(mx.float32))) for name in source.tensors}
    restored = tmp_path / "restored.safetensors"
    save_file(dense, restored)
    others = {part: SOURCE / f"{part}.safetensors" for part in ("dit", "vae", "clip")}
    frames = frames_of({**others, "t5_encoder": path}, listener, folder=None)
    wanted = frames_of({"t5_encoder": restored}, listener)
    assert np.abs(frames - wanted).max() < EQUAL_BAR
    assert np.abs(frames - golden_file("pipeline")[f"{CASE}.frames"]).max() > 1e-4  # quantised indeed
    convert(Snapshot.assemble(None, {**others, "t5_encoder": path}), tmp_path / "made", ConvertOptions(), listener)
    tokenizers = [load_tokenizer(folder / "tokenizer.json") for folder in (tmp_path / "made", SOURCE)]
    made, wanted = (tokenizer.encode(golden_prompts(CASE).positive).ids for tokenizer in tokenizers)
    assert made == wanted


@pytest.mark.parametrize("bits", [4, 8])
def test_a_packed_xocialize_dit_equals_a_packed_snapshot(bits, tmp_path, listener):
    """`dit-q4.safetensors` beside quant.json; what is packed, and how, is told by the shapes."""
    dense = mx.load(str(SOURCE / "dit.safetensors"))
    foreign = {name: mx.array(tensor.numpy()) for name, tensor in in_layout("dit", "xocialize").items()}
    packed = dict(dense)
    for made in (packed, foreign):
        for name in [n for n in made if n.startswith("blocks.") and n.endswith(".weight") and made[n].ndim == 2]:
            weight, scales, biases = mx.quantize(made[name].astype(mx.bfloat16), group_size=32, bits=bits)
            stem = name.removesuffix("weight")
            made |= {name: weight, f"{stem}scales": scales, f"{stem}biases": biases}
    (tmp_path / "x").mkdir()
    mx.save_safetensors(str(tmp_path / "x" / f"dit-q{bits}.safetensors"), foreign)
    (tmp_path / "x" / "quant.json").write_text(json.dumps({"bits": bits, "group_size": 32}))
    mx.save_safetensors(str(tmp_path / "packed.safetensors"), packed)
    frames = frames_of({"dit": tmp_path / "x"}, listener)
    assert np.abs(frames - frames_of({"dit": tmp_path / "packed.safetensors"}, listener)).max() < EQUAL_BAR


def test_an_unknown_way_of_packing_is_refused_by_its_name(tmp_path):
    tensors = in_layout("dit", "comfy")
    (name, *_) = block_matrices(tensors)
    tensors |= said(name.removesuffix(".weight"), format="int3_magic")
    save_file(tensors, tmp_path / "dit.safetensors")
    with pytest.raises(WeightsError, match="int3_magic"):
        open_component(tmp_path / "dit.safetensors", "dit")


def test_inspect_reads_no_data(monkeypatch):
    def read(*_):
        raise AssertionError("data was read")

    monkeypatch.setattr(SafetensorsFile, "read", read)
    assert "91 tensors (91 BF16)" in describe(SOURCE / "dit.safetensors")
