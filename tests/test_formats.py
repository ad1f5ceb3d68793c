"""The tiny golden model in every published layout and format gives the golden frames."""

import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import GOLDENS, generate, golden_file, golden_prompts, golden_scene, golden_settings

from mlx_backend.cli.main import main
from mlx_backend.interface.errors import WeightsError
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints.component_file import open_component
from mlx_backend.weights.checkpoints.snapshot import Snapshot, find_snapshots
from mlx_backend.weights.names import key_tables
from mlx_backend.weights.names.key_maps import origins

SOURCE = GOLDENS / "snapshot"
CASE = 0
DENSE_BAR = 2e-3  # bf16 weights survive a change of dtype; the frames are stored as float16
EQUAL_BAR = 1e-5  # the same float32 weights by another way


def network_tensors(path, component):
    """A component's tensors as the network has them, float32 numpy."""
    source = open_component(path, component)
    return {name: np.array(source.array(name).astype(mx.float32)) for name in source.tensors}


def in_layout(component, name):
    """The golden component's tensors under the names and shapes of a foreign layout, float32."""
    layout = next(row for row in key_tables.LAYOUTS if (row.component, row.name) == (component, name))
    tensors = network_tensors(SOURCE / f"{component}.safetensors", component)
    made, pieces = {}, {}
    for official, choices in origins(layout).items():
        if official not in tensors:
            continue
        value, recipe = stored(layout, official, tensors[official]), choices[0]
        for source, part in zip(recipe.sources, np.split(value, len(recipe.sources)), strict=True):
            pieces.setdefault(source, {})[recipe.part] = part
    for source, parts in pieces.items():
        made[layout.prefixes[0] + source] = np.concatenate([parts[i] for i in sorted(parts)])
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in made.items()}


def stored(layout, name, value):
    """A tensor of the network in the shape that the layout stores."""
    network_last = layout.component in key_tables.CHANNELS_LAST_NETWORKS
    if value.ndim >= 4 and name.endswith(".weight") and network_last != layout.channels_last:
        return np.moveaxis(value, -1, 1) if network_last else np.moveaxis(value, 1, -1)
    if name in layout.transposed:
        return value.T
    return value.reshape(value.shape[dict(layout.leading).get(name, 0) :])


def frames_of(parts, listener, folder=SOURCE):
    """Frames of a golden run with some components from other files."""
    models = Models.of(ModelStore(Snapshot.assemble(folder, parts), "auto"))
    return generate(models, golden_prompts(CASE), golden_scene(CASE), golden_settings(CASE), None, listener)


def assert_golden(frames):
    assert np.abs(frames - golden_file("pipeline")[f"{CASE}.frames"].astype(np.float32)).max() < DENSE_BAR


DENSE = [
    ("dit", "comfy", torch.float16, "safetensors"),
    ("dit", "comfy", torch.bfloat16, "safetensors"),
    ("dit", "training", torch.float32, "module.pt"),
    ("dit", "diffusers", torch.bfloat16, "sharded"),
    ("dit", "xocialize", torch.bfloat16, "safetensors"),
    ("vae", "official", torch.float32, "pth"),
    ("vae", "diffusers", torch.float32, "safetensors"),
    ("t5_encoder", "official", torch.bfloat16, "pth"),
    ("t5_encoder", "hf_t5", torch.float16, "safetensors"),
    ("clip", "official", torch.float32, "textual.pth"),
    ("clip", "hf_clip", torch.float32, "safetensors"),
    ("clip", "xocialize", torch.float32, "safetensors"),
]


def write(tensors, kind, folder):
    """Write tensors in one of the formats and return the file to open."""
    if kind == "safetensors":
        save_file(tensors, folder / "file.safetensors")
        return folder / "file.safetensors"
    if kind == "sharded":
        names = sorted(tensors)
        shards = {f"model-{i}-of-2.safetensors": names[i::2] for i in range(2)}
        for shard, part in shards.items():
            save_file({name: tensors[name] for name in part}, folder / shard)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {n: shard for shard, part in shards.items() for n in part}}))
        return index
    path = folder / "file.pth"
    if kind == "textual.pth":
        tensors = tensors | {"textual.token_embedding.weight": torch.zeros(3, 4), "log_scale": torch.zeros(())}
    torch.save({"module": tensors} if kind == "module.pt" else tensors, path)
    return path


@pytest.mark.parametrize(("component", "layout", "dtype", "kind"), DENSE)
def test_a_dense_file_gives_the_golden_frames(component, layout, dtype, kind, tmp_path, listener):
    tensors = {name: tensor.to(dtype) for name, tensor in in_layout(component, layout).items()}
    path = write(tensors, kind, tmp_path)
    assert_golden(frames_of({component: path}, listener))


def test_a_folder_of_any_layout_is_enough(tmp_path, listener, capsys):
    """Upstream's folders, with the tokenizer among them."""
    (tmp_path / "model" / "1").mkdir(parents=True)
    torch.save({"module": in_layout("dit", "training")}, tmp_path / "model" / "1" / "fsdp2_rank_0000_checkpoint.pt")
    torch.save(in_layout("vae", "official"), tmp_path / "Wan2.1_VAE.pth")
    (tmp_path / "umt5-xxl").mkdir()
    torch.save(in_layout("t5_encoder", "official"), tmp_path / "umt5-xxl" / "models_t5_umt5-xxl-enc-bf16.pth")
    (tmp_path / "umt5-xxl" / "tokenizer.json").write_bytes((SOURCE / "tokenizer.json").read_bytes())
    torch.save(in_layout("clip", "official"), tmp_path / "models_clip.pth")
    models = Models.of(ModelStore(Snapshot.open(tmp_path), "auto"))
    run = golden_prompts(CASE), golden_scene(CASE), golden_settings(CASE)
    assert_golden(generate(models, *run, None, listener))
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "as it was trained" in said
    assert "umt5-xxl/tokenizer.json: the tokenizer" in said


FOLDERS = {
    "diffusers": {
        "transformer": ("dit", "diffusers", "sharded"),
        "vae": ("vae", "diffusers", "safetensors"),
        "text_encoder": ("t5_encoder", "hf_t5", "sharded"),
        "image_encoder": ("clip", "hf_clip", "safetensors"),
    },
    "xocialize": {
        "dit": ("dit", "xocialize", "safetensors"),
        "vae": ("vae", "turnkey", "safetensors"),
        "umt5": ("t5_encoder", "turnkey", "safetensors"),
        "clip": ("clip", "xocialize", "safetensors"),
    },
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_published_folder_is_enough(kind, tmp_path, listener):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, (component, layout, form) in FOLDERS[kind].items():
        inner = folder / name
        inner.mkdir()
        path = write(in_layout(component, layout), form, inner)
        if kind == "diffusers":
            (inner / "config.json").write_text("{}")
        else:  # a flat folder, and no tokenizer in it
            path.rename(folder / f"{name}.safetensors")
            inner.rmdir()
    parts = {"tokenizer": SOURCE / "tokenizer.json"} if kind == "xocialize" else {}
    if kind == "diffusers":
        (folder / "model_index.json").write_text("{}")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "tokenizer.json").write_bytes((SOURCE / "tokenizer.json").read_bytes())
    assert find_snapshots([tmp_path]) == [folder]
    assert_golden(frames_of(parts, listener, folder=folder))


def block_matrices(tensors):
    return [n for n, t in tensors.items() if ".blocks." in f".{n}" and t.ndim == 2 and "norm" not in n]


def restored_frames(path, tmp_path, listener):
    """Frames from the float32 weights that the file's quantised ones stand for."""
    dense = tmp_path / "restored.safetensors"
    save_file({n: torch.from_numpy(a) for n, a in network_tensors(path, "dit").items()}, dense)
    return frames_of({"dit": dense}, listener)


def test_fp8_scaled_equals_its_own_restored_weights(tmp_path, listener):
    tensors = in_layout("dit", "comfy")
    for name in block_matrices(tensors):
        scale = tensors[name].abs().max() / 448
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[name.removesuffix("weight") + "scale_weight"] = scale.reshape(())
    tensors["model.diffusion_model.scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "fp8.safetensors")
    frames = frames_of({"dit": tmp_path / "fp8.safetensors"}, listener)
    assert np.abs(frames - restored_frames(tmp_path / "fp8.safetensors", tmp_path, listener)).max() < EQUAL_BAR
    assert 1e-3 < np.abs(frames - golden_file("pipeline")[f"{CASE}.frames"]).max() < 1  # quantised, yet a picture


@pytest.mark.parametrize("quantisation", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_equals_its_own_restored_weights(quantisation, tmp_path, listener):
    path = tmp_path / "dit.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    tensors = in_layout("dit", "official")
    kind = gguf.GGMLQuantizationType[quantisation]
    matrices = block_matrices(tensors)
    for name, tensor in tensors.items():
        if name in matrices:
            writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        elif tensor.ndim == 5:  # GGUF has four axes at most: converters flatten, and note the shape
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
            writer.add_tensor(name, tensor.numpy().reshape(tensor.shape[0], -1))
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    frames = frames_of({"dit": path}, listener)
    assert np.abs(frames - restored_frames(path, tmp_path, listener)).max() < EQUAL_BAR


def test_a_part_that_is_another_is_refused_by_its_name(tmp_path):
    from mlx_backend.weights.checkpoints.components import fitting

    snapshot = Snapshot.assemble(SOURCE, {"vae": SOURCE / "clip.safetensors"})
    with pytest.raises(WeightsError, match="CLIP visual tower.*a Wan VAE is needed"):
        fitting(snapshot, "vae", "auto")


def test_several_files_of_one_part_must_be_chosen_from(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").symlink_to(SOURCE / "vae.safetensors")
    with pytest.raises(WeightsError, match=r"several files that are a VAE \(a.safetensors, b.safetensors\)"):
        Snapshot.assemble(SOURCE, {"vae": tmp_path})


def test_shards_outside_the_folder_are_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for shard in ("../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".."):
        index.write_text(json.dumps({"weight_map": {"x": shard}}))
        with pytest.raises(WeightsError, match="beside their index"):
            open_component(index, "vae")


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(2)}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(WeightsError, match="'x' stands in two shards"):
        open_component(index, "vae")


def test_folders_of_any_layout_are_offered_and_hidden_ones_are_not(tmp_path):
    (tmp_path / "turnkey").symlink_to(SOURCE)
    (tmp_path / "upstream" / "umt5-xxl").mkdir(parents=True)
    (tmp_path / "upstream" / "umt5-xxl" / "encoder.pth").write_bytes(b"")
    for hidden in (".snapshot.part", "upstream/.cache"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "dit.safetensors").write_bytes(b"")
        (tmp_path / hidden / "config.json").write_bytes(b"{}")
    (tmp_path / "loose.safetensors").write_bytes(b"")
    assert find_snapshots([tmp_path]) == [tmp_path / "turnkey", tmp_path / "upstream"]
