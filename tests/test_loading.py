"""Model files that are missing, damaged or of another model, and packed ones: what loads is right, the rest is told."""

import builtins
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file as load_numpy
from support import FRAMES_BAR, GOLDENS, generate, golden_file, golden_prompts, golden_scene, golden_settings

from mlx_backend.interface.errors import WeightsError
from mlx_backend.models.linear import PackedLinear
from mlx_backend.pipelines.store import Models, ModelStore, get_dit
from mlx_backend.pipelines.text import encode_prompts
from mlx_backend.weights.checkpoints import component_file, components, hub
from mlx_backend.weights.checkpoints.components import fitting, load_component
from mlx_backend.weights.checkpoints.hub import download_snapshot
from mlx_backend.weights.checkpoints.origin import Expected, Origin
from mlx_backend.weights.checkpoints.snapshot import COMPONENTS, Snapshot, find_snapshots
from mlx_backend.weights.formats.safetensors_file import read_header

SOURCE = GOLDENS / "snapshot"
PACKED = [f"self_attn.{name}" for name in "qkvo"] + [
    *(f"cross_attn.{name}" for name in ("q", "k", "v", "o", "k_img", "v_img")),
    "ffn.0",
    "ffn.2",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the golden snapshot; its files are links, to be replaced by broken ones."""
    copy = tmp_path / "snapshot"
    copy.mkdir()
    for path in SOURCE.iterdir():
        (copy / path.name).symlink_to(path)
    return copy


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rewrite(folder: Path, component: str, changes: dict[str, mx.array | None], source: str = "") -> Path:
    """Write a component's file anew with some tensors changed, added, or (None) left out."""
    tensors = mx.load(str(SOURCE / f"{source or component}.safetensors")) | changes
    path = folder / f"{component}.safetensors"
    path.unlink(missing_ok=True)
    mx.save_safetensors(str(path), {name: array for name, array in tensors.items() if array is not None})
    return path


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def refused(work, *words: object) -> str:
    """Assert that `work()` raises a WeightsError of one sentence with these words."""
    with pytest.raises(WeightsError) as caught:
        work()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert str(word) in sentence
    return sentence


def check(folder: Path, component: str) -> None:
    fitting(Snapshot.open(folder), component, "auto")


# Tensors

EXAMPLES = {
    "dit": (
        "blocks.1.cross_attn.k_img.weight",
        "patch_embedding_mask.weight",
        "head.modulation",
        "blocks.0.ffn.0.bias",
    ),
    "vae": ("encoder.conv1.bias", "decoder.middle.0.residual.2.weight", "conv2.weight"),
    "t5_encoder": ("blocks.1.ffn.gate_proj.weight", "norm.weight", "token_embedding.weight"),
    "clip": ("transformer.0.attn.to_qkv.weight", "pos_embedding", "transformer.1.mlp.2.bias"),
}


def official(name: str) -> str:
    return name.replace("gate_proj", "gate.0")


@pytest.mark.parametrize(("component", "name"), [(c, name) for c, names in EXAMPLES.items() for name in names])
def test_a_tensor_that_is_missing_or_misshapen_is_named(component, name, folder):
    array = mx.load(str(SOURCE / f"{component}.safetensors"))[name]
    path = rewrite(folder, component, {name: None})
    refused(lambda: check(folder, component), path, f"'{official(name)}'")

    longer = mx.concatenate([array, array[:1]])
    rewrite(folder, component, {name: longer})
    if name == "token_embedding.weight":  # a vocabulary may be padded
        check(folder, component)
        return
    refused(lambda: check(folder, component), path, f"'{official(name)}'", list(longer.shape), list(array.shape))


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("name", ["blocks.9.extra.weight", "transformer.5.x", "encoder.downsamples.40.x", "lora_down"])
def test_a_surplus_tensor_is_named(component, name, folder):
    count = len(read_header(SOURCE / f"{component}.safetensors"))
    path = rewrite(folder, component, {name: mx.zeros((2,))})
    refused(lambda: check(folder, component), path, f"'{name}'", f"exactly {count} tensors, found {count + 1}")


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32])
def test_a_tensor_of_another_dtype_is_named(dtype, folder):
    name = "blocks.0.self_attn.q.weight"
    path = rewrite(folder, "dit", {name: mx.zeros((256, 256), dtype)})
    found = {mx.int32: "I32", mx.uint32: "U32"}[dtype]
    refused(lambda: check(folder, "dit"), path, f"'{name}'", f"stored as {found}", "F32, F16 or BF16")


@pytest.mark.parametrize("dtype", [mx.float16, mx.float32, mx.bfloat16])
def test_every_float_loads(dtype, folder, listener):
    tensors = mx.load(str(SOURCE / "clip.safetensors"))
    rewrite(folder, "clip", {name: array.astype(dtype) for name, array in tensors.items()})
    load_component(fitting(Snapshot.open(folder), "clip", "auto"), lambda: None)


def test_many_missing_tensors_are_counted(folder):
    tensors = read_header(SOURCE / "dit.safetensors")
    rewrite(folder, "dit", {name: None for name in tensors if name.startswith("blocks.1.cross_attn")})
    refused(lambda: check(folder, "dit"), "lacks 15 tensors", "'blocks.1.cross_attn.k.bias'", "...", "found 76")


# Files


WHOLE = (SOURCE / "clip.safetensors").read_bytes()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
DAMAGED = {
    "one byte short": (WHOLE[:-1], (f"{len(WHOLE) - 1} bytes", len(WHOLE), "incomplete")),
    "half": (WHOLE[: len(WHOLE) // 2], (f"{len(WHOLE) // 2} bytes", len(WHOLE), "incomplete", "download it again")),
    "cut in its header": (WHOLE[:100], ("inside its header", "100 bytes", "incomplete")),
    "cut in its first bytes": (WHOLE[:5], ("5 bytes", "not a safetensors file")),
    "empty": (b"", ("0 bytes", "empty", "download it again")),
    "zeros": (bytes(1000), ("1000 bytes", "not a safetensors file")),
    "web page": (b"<!DOCTYPE html><html>Sign in</html>", ("a web page", "log in")),
    "web page after a line": (b"\n <html>", ("a web page",)),
    "pointer": (POINTER, ("a Git LFS pointer", "git lfs pull")),
    "JSON answer": (b'{"error": "Invalid credentials"}', ("not an index of safetensors files",)),
    "PyTorch": (b"PK\x03\x04\x00\x00\x08\x08" + bytes(99), ("a zip without a sound end", "download it again")),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(99), ("0 tensors", "a CLIP visual tower is needed")),
    "list": (safetensors([1, 2]), ("header is damaged",)),
    "number": (safetensors(b"3"), ("header is damaged",)),
    "deep": (safetensors(b"[" * 100_000), ("header is damaged",)),
    "Latin-1": (safetensors(b'{"\xe9": 1}'), ("header is damaged",)),
    "no offsets": (safetensors({"a": {"dtype": "F32", "shape": [1]}}), ("header is damaged",)),
    "overlap": (
        safetensors(
            {n: {"dtype": "U8", "shape": [2], "data_offsets": [i, i + 2]} for i, n in enumerate("ab")}, bytes(3)
        ),
        ("header is damaged",),
    ),
    "no tensors": (safetensors({}), ("0 tensors", "CLIP visual tower")),
    "wrong bytes": (
        safetensors({"a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 20]}}, bytes(20)),
        ("'a'", "20 bytes", "[3, 2]", "24"),
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_told_what_it_is(kind, folder):
    content, words = DAMAGED[kind]
    path = put(folder, "clip.safetensors", content)
    refused(lambda: check(folder, "clip"), path, *words)


@pytest.mark.parametrize("first", [ord("<"), ord("v"), ord("P"), ord("G")])
def test_a_header_may_have_any_length(first, tmp_path):
    """MLX pads no headers, so the first byte of a sound file may be any, that of a web page too."""
    entry = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(entry).encode()
    text += b" " * ((first - len(text)) % 256)
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(text, b"\0"))
    assert path.read_bytes()[0] == first
    assert read_header(path)["a"].shape == (1,)
    assert mx.load(str(path))["a"].shape == (1,)


# Wrong models


def wan_t2v() -> dict[str, mx.array]:
    """A text-to-video Wan of one block."""
    names = read_header(SOURCE / "dit.safetensors")
    dropped = ("img_emb.", "patch_embedding_mask.", "patch_embedding_pose.", "blocks.1.")
    return {
        name: mx.zeros(info.shape)
        for name, info in names.items()
        if not name.startswith(dropped) and "_img" not in name
    }


@pytest.mark.parametrize(
    ("component", "content", "words"),
    [
        (
            "dit",
            wan_t2v,
            ("a Wan diffusion transformer (text-to-video or Wan 2.2)", "a SCAIL-2 or Wan diffusion transformer"),
        ),
        ("dit", lambda: wan_t2v() | {"img_emb.proj.1.bias": mx.zeros(3)}, ("a Wan image-to-video",)),
        ("dit", lambda: wan_t2v() | {"patch_embedding_pose.bias": mx.zeros(3)}, ("SCAIL-1",)),
        ("dit", lambda: {f"model.diffusion_model.{name}": a for name, a in wan_t2v().items()}, ("ComfyUI",)),
        ("dit", lambda: {"condition_embedder.time_proj.bias": mx.zeros(3)}, ("diffusers",)),
        ("dit", lambda: {"layers.0.bias": mx.zeros(3)}, ("does not know", "1 tensors", "'layers.0.bias'")),
        ("vae", lambda: mx.load(str(SOURCE / "clip.safetensors")), ("a CLIP visual tower", "a Wan VAE is needed")),
        ("vae", lambda: {"decoder.upsamples.0.upsamples.0.residual.2.weight": mx.zeros(3)}, ("a Wan 2.2 VAE",)),
        ("t5_encoder", lambda: {"encoder.block.0.layer.0.bias": mx.zeros(3)}, ("T5", "transformers")),
        ("clip", lambda: {"vision_model.post_layernorm.bias": mx.zeros(3)}, ("CLIP", "transformers")),
        ("clip", lambda: mx.load(str(SOURCE / "vae.safetensors")), ("a Wan 2.1 VAE", "a CLIP visual tower is needed")),
    ],
)
def test_another_model_is_told_by_name(component, content, words, folder):
    path = folder / f"{component}.safetensors"
    path.unlink()
    mx.save_safetensors(str(path), content())
    refused(lambda: check(folder, component), path, *words, "choose the matching file")


# Folders


@pytest.mark.parametrize("name", ["config.json", "dit.safetensors", "tokenizer.json", "clip.safetensors"])
def test_a_folder_without_a_file_is_told_which(name, folder):
    (folder / name).unlink()
    refused(lambda: Snapshot.open(folder), folder, name, "complete")
    (folder / name).mkdir()
    refused(lambda: Snapshot.open(folder), folder, name)


@pytest.mark.parametrize("half", ["dit.safetensors.part", "dit.safetensors.incomplete", ".dit.safetensors.aria2"])
def test_a_half_downloaded_file_is_missing(half, folder):
    (folder / "dit.safetensors").rename(folder / half)
    (folder / "vae.safetensors").unlink()
    refused(lambda: Snapshot.open(folder), "dit.safetensors, vae.safetensors", "incomplete", "run it again")


def test_a_path_that_is_no_folder_is_told(tmp_path):
    refused(lambda: Snapshot.open(tmp_path / "gone"), tmp_path / "gone", "not a folder")
    refused(lambda: Snapshot.open(SOURCE / "dit.safetensors"), "dit.safetensors is not a folder")
    refused(lambda: Snapshot.open(tmp_path), tmp_path, "no config.json", "choose the folder that holds its files")


@pytest.mark.parametrize("text", ["", "{", "not json", "\xff", "[" * 100_000])
def test_a_config_that_is_no_json_is_told(text, folder):
    path = put(folder, "config.json", text.encode("latin-1"))
    refused(lambda: Snapshot.open(folder), path, "not valid JSON", "download it again")


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"dim"', "null"])
def test_a_config_that_is_no_object_is_told(text, folder):
    path = put(folder, "config.json", text)
    refused(lambda: Snapshot.open(folder), path, "no settings")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dim": 5120}, ("dim = 5120", "'head.modulation' has shape [1, 2, 256]")),
        ({"dim": "256"}, ("dim = '256'", "[1, 2, 256]")),
        ({"ffn_dim": None}, ("ffn_dim = None", "'blocks.0.ffn.0.bias' has shape [320]")),
        ({"in_dim": 36}, ("in_dim = 36", "'patch_embedding.weight' has shape [256, 20, 1, 2, 2]")),
        ({"num_layers": 40}, ("num_layers = 40", "the file has 2:")),
        ({"num_layers": 1}, ("num_layers = 1", "the file has 2:")),
        ({"out_dim": 48}, ("out_dim = 48", "the file has 16:")),
        ({"num_heads": 3}, ("num_heads = 3", "256", "usual: 2")),
        ({"num_heads": 0}, ("num_heads = 0", "above 0")),
        ({"num_heads": "2"}, ("num_heads = '2'",)),
        ({"num_heads": 2.0}, ("num_heads = 2.0",)),
        ({"num_heads": True}, ("num_heads = True",)),
        ({"eps": "small"}, ("eps = 'small'", "1e-06")),
        ({"text_len": 77}, ("text_len = 77", "512")),
        ({"text_len": [512]}, ("text_len = [512]",)),
    ],
)
def test_a_config_that_contradicts_the_file_is_told(settings, words, folder):
    known = json.loads((SOURCE / "config.json").read_text())
    put(folder, "config.json", json.dumps(known | settings))
    refused(lambda: check(folder, "dit"), "config.json", folder / "dit.safetensors", *words)


def test_the_heads_of_clip_are_checked(folder):
    put(folder, "config.json", json.dumps({"clip_num_heads": 7}))
    refused(lambda: check(folder, "clip"), "clip_num_heads = 7", "160")


def test_a_config_may_say_nothing(folder, listener):
    put(folder, "config.json", "{}")
    store = ModelStore(Snapshot.open(folder), "auto")
    frames = generate(Models.of(store), golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    assert np.abs(frames - golden_file("pipeline")["2.frames"].astype(np.float32)).max() < FRAMES_BAR


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_a_corrupt_tokenizer_is_told(content, folder, listener):
    path = put(folder, "tokenizer.json", content)
    models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
    refused(lambda: encode_prompts(models.text_encoder, "a cat", "", listener), path, "tokenizer", "download")
    assert models.dit.store.loaded == ()


def test_the_tokenizer_of_another_model_is_told(folder, listener):
    known = json.loads((SOURCE / "tokenizer.json").read_text())
    model = known["model"] | {"vocab": [["a", 0.0], *known["model"]["vocab"]]}
    known |= {"added_tokens": [], "post_processor": None, "model": model}
    put(folder, "tokenizer.json", json.dumps(known))
    models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
    refused(
        lambda: encode_prompts(models.text_encoder, "a cat", "", listener),
        folder / "tokenizer.json",
        "another model",
        "its token 1 is '<pad>'",
    )


def test_a_token_that_the_encoder_does_not_know_is_told(folder, listener):
    """MLX would read beyond the end of the embedding."""
    rows = mx.load(str(SOURCE / "t5_encoder.safetensors"))["token_embedding.weight"]
    rewrite(folder, "t5_encoder", {"token_embedding.weight": rows[:8]})
    models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
    refused(lambda: encode_prompts(models.text_encoder, "The girl", "", listener), "tokenizer.json", "knows 8")


# Whole runs


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_run_sees_every_damage_before_it_loads_anything(component, folder, listener):
    put(folder, f"{component}.safetensors", (SOURCE / f"{component}.safetensors").read_bytes()[:-4])
    store = ModelStore(Snapshot.open(folder), "auto")
    with pytest.raises(WeightsError, match=component):
        generate(Models.of(store), golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    assert store.loaded == ()
    assert listener.events == []


def test_a_file_mended_after_an_error_loads(folder, listener):
    whole = (SOURCE / "vae.safetensors").read_bytes()
    path = put(folder, "vae.safetensors", whole[:-4])
    store = ModelStore(Snapshot.open(folder), "auto")
    with pytest.raises(WeightsError):
        store.get("vae", listener)
    path.write_bytes(whole)
    store.get("vae", listener)
    assert store.loaded == ("vae",)


def test_a_run_opens_and_fits_each_file_once(folder, listener, monkeypatch):
    opened, fitted = [], []
    original_open, original_fit = component_file.open_tensors, components.fit

    def open_counted(path):
        opened.append(path.name)
        return original_open(path)

    def fit_counted(model, source, dtype):
        fitted.append(source.component)
        original_fit(model, source, dtype)

    monkeypatch.setattr(component_file, "open_tensors", open_counted)
    monkeypatch.setattr(components, "fit", fit_counted)
    store = ModelStore(Snapshot.open(folder), "auto")
    run = (Models.of(store), golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    first = generate(*run)
    assert sorted(opened) == sorted(f"{name}.safetensors" for name in COMPONENTS)
    assert sorted(fitted) == sorted(COMPONENTS)
    opened.clear()
    assert np.array_equal(generate(*run), first)
    assert len(opened) == len(set(opened))


def test_a_file_that_changes_after_the_check_is_fitted_anew(folder):
    store = ModelStore(Snapshot.open(folder), "auto")
    kept = store.fitted("vae")
    assert store.fitted("vae") is kept
    path = put(folder, "vae.safetensors", (SOURCE / "vae.safetensors").read_bytes())
    assert store.fitted("vae") is not kept
    path.unlink()
    refused(lambda: store.fitted("vae"), path)


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError", "ReadTimeout"])
def test_a_broken_download_is_told_and_goes_on(kind, tmp_path, listener, monkeypatch):
    kinds = pytest.importorskip("httpx") if kind == "ReadTimeout" else builtins
    asked = []

    def fetch(url, part, expected, listener):
        name = url.rsplit("/", 1)[-1]
        asked.append(name)
        if name == "vae.safetensors" and asked.count(name) == 1:
            raise getattr(kinds, kind)("broken\noff")
        shutil.copy(SOURCE / name, part)

    def ask(wanted, listener):
        return Origin(wanted.repository, "0" * 40, "", {name: Expected(None, "") for name in hub.FILES})

    def download() -> Path:
        return download_snapshot("someone/tiny", tmp_path, listener)

    monkeypatch.setattr(hub, "_fetch", fetch)
    monkeypatch.setattr(hub, "_ask", ask)
    refused(download, "vae.safetensors", "someone/tiny", "broken off", "kept")
    assert download() == tmp_path / "tiny"
    assert len(asked) == 4 + 3  # those that had arrived are kept
    download()  # whole, so nothing is asked
    assert len(asked) == 4 + 3


def test_links_in_circles_end(tmp_path, folder):
    """A models folder often holds links; following a circle of two would take for ever."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / name / "other").symlink_to(tmp_path / ("two" if name == "one" else "one"))
    (tmp_path / "alias").symlink_to(folder)
    assert find_snapshots([tmp_path]) == [tmp_path / "alias", tmp_path / "snapshot"]


# Packed weights


def packed_and_dequantised(bits: int, group_size: int) -> tuple[dict[str, mx.array], dict[str, mx.array]]:
    packed = mx.load(str(SOURCE / "dit.safetensors"))
    dense = dict(packed)
    for block in range(2):
        for name in PACKED:
            layer = f"blocks.{block}.{name}"
            parts = mx.quantize(packed[f"{layer}.weight"], group_size=group_size, bits=bits)
            for part, array in zip(("weight", "scales", "biases"), parts, strict=True):
                packed[f"{layer}.{part}"] = array
            weight, scales, biases = (part if part.dtype == mx.uint32 else part.astype(mx.float32) for part in parts)
            dense[f"{layer}.weight"] = mx.dequantize(weight, scales, biases, group_size=group_size, bits=bits)
    return packed, dense


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 64])
def test_packed_weights_agree_with_what_they_stand_for(bits, group_size, folder, listener):
    scene, settings = replace(golden_scene(0), max_frames=5), replace(golden_settings(0), steps=2, cfg=1.0)
    frames = []
    for tensors in packed_and_dequantised(bits, group_size):
        rewrite(folder, "dit", tensors)
        models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
        frames.append(generate(models, golden_prompts(0), scene, settings, None, listener))
        dit = get_dit(models.dit, listener)
        layers = [module for module in dit.modules() if isinstance(module, PackedLinear)]
        assert len(layers) == (2 * len(PACKED) if len(frames) == 1 else 0)
    assert np.isfinite(frames[0]).all()
    assert np.abs(frames[0] - frames[1]).max() < 1e-4


def test_packed_weights_differ_from_the_published_ones(folder, listener):
    """The comparison above means something: four bits change the picture."""
    packed, _ = packed_and_dequantised(4, 64)
    rewrite(folder, "dit", packed)
    models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
    frames = generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    assert np.abs(frames - golden_file("pipeline")["2.frames"].astype(np.float32)).max() > 1e-3


LAYER = "blocks.0.self_attn.q"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{LAYER}.scales": None}, (f"'{LAYER}.biases'",)),
        ({f"{LAYER}.biases": None}, ("lacks", f"'{LAYER}.biases'")),
        ({f"{LAYER}.weight": None}, ("lacks", f"'{LAYER}.weight'")),
        ({f"{LAYER}.bias": None}, ("lacks", f"'{LAYER}.bias'")),
        ({f"{LAYER}.weight": mx.zeros((256, 31), mx.uint32)}, (f"'{LAYER}.weight'", "31 packed words", "256 inputs")),
        ({f"{LAYER}.weight": mx.zeros((255, 32), mx.uint32)}, (f"'{LAYER}.weight'", "[255, 32]", "[256, 32]")),
        ({f"{LAYER}.weight": mx.zeros((256, 256), mx.bfloat16)}, (f"'{LAYER}.weight'", "256 packed words")),
        ({f"{LAYER}.weight": mx.zeros((256, 32))}, (f"'{LAYER}.weight'", "stored as F32", "expected U32")),
        ({f"{LAYER}.scales": mx.zeros((256, 3))}, (f"'{LAYER}.scales' 3 scales per row", "32, 64 or 128")),
        ({f"{LAYER}.scales": mx.zeros((256, 256))}, (f"'{LAYER}.scales' 256 scales per row",)),
        ({f"{LAYER}.scales": mx.zeros((256, 4), mx.uint8)}, (f"'{LAYER}.scales'", "stored as U8")),
        ({f"{LAYER}.scales": mx.zeros(())}, (f"'{LAYER}.scales' 0 scales per row",)),
        ({f"{LAYER}.biases": mx.zeros((256, 8))}, (f"'{LAYER}.biases'", "[256, 8]", "[256, 4]")),
        ({"head.head.scales": mx.zeros((64, 4))}, ("'head.head.weight'",)),
        ({"patch_embedding.scales": mx.zeros((256, 4))}, ("'patch_embedding.scales'", "does not know")),
    ],
)
def test_packed_weights_that_do_not_fit_are_named(changes, words, folder):
    packed, _ = packed_and_dequantised(4, 64)
    path = rewrite(folder, "dit", packed | changes)
    refused(lambda: check(folder, "dit"), path, *words)


def test_the_helpers_of_these_tests_write_what_they_say(folder):
    """A rewritten file without changes is the same for another reader."""
    path = rewrite(folder, "vae", {})
    assert not path.is_symlink()
    before, after = load_numpy(SOURCE / "vae.safetensors"), load_numpy(path)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
