"""What `convert` writes loads and is right; what it refuses or cannot finish leaves nothing behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from support import GOLDENS, ROOT, generate, golden_file, golden_prompts, golden_scene, golden_settings
from test_formats import in_layout

from mlx_backend.cli.main import main
from mlx_backend.interface.conversion import ConvertOptions, Packing
from mlx_backend.interface.errors import Cancelled, RequestError, WeightsError
from mlx_backend.models.linear import PackedLinear
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints import convert as module
from mlx_backend.weights.checkpoints.components import fitting, load_component
from mlx_backend.weights.checkpoints.convert import choose_mixed, convert
from mlx_backend.weights.checkpoints.snapshot import COMPONENTS, Snapshot, find_snapshots
from mlx_backend.weights.formats.safetensors_file import read_header

SOURCE = GOLDENS / "snapshot"
BAR = 2e-3
FILES = {"config.json", "tokenizer.json", *(f"{component}.safetensors" for component in COMPONENTS)}


def golden_frames(folder, listener):
    models = Models.of(ModelStore(Snapshot.open(folder), "auto"))
    return generate(models, golden_prompts(0), golden_scene(0), golden_settings(0), None, listener)


def dit_alone():
    return Snapshot({"dit": SOURCE / "dit.safetensors"}, SOURCE, {})


def packed_names(tensors):
    return sorted(name.removesuffix(".scales") for name in tensors if name.endswith(".scales"))


def test_an_upstream_folder_becomes_a_turnkey_one(tmp_path, listener):
    upstream = tmp_path / "upstream"
    (upstream / "umt5-xxl").mkdir(parents=True)
    torch.save({"module": in_layout("dit", "training")}, upstream / "fsdp2_rank_0000_checkpoint.pt")
    torch.save(in_layout("vae", "official"), upstream / "Wan2.1_VAE.pth")
    torch.save(in_layout("t5_encoder", "official"), upstream / "umt5-xxl" / "encoder.pth")
    torch.save(in_layout("clip", "official"), upstream / "models_clip.pth")
    (upstream / "umt5-xxl" / "tokenizer.json").write_bytes((SOURCE / "tokenizer.json").read_bytes())
    convert(Snapshot.open(upstream), tmp_path / "made", ConvertOptions(), listener)
    assert {path.name for path in (tmp_path / "made").iterdir()} == FILES
    assert json.loads((tmp_path / "made" / "config.json").read_text()) == json.loads(
        (SOURCE / "config.json").read_text()
    )
    for component in COMPONENTS:  # published names, shapes, dtypes and bits, whatever the way they came
        made = mx.load(str(tmp_path / "made" / f"{component}.safetensors"))
        known = mx.load(str(SOURCE / f"{component}.safetensors"))
        assert made.keys() == known.keys()
        for name, array in known.items():
            assert made[name].dtype == array.dtype
            assert mx.array_equal(made[name], array).item(), name
    frames = golden_frames(tmp_path / "made", listener)
    assert np.abs(frames - golden_file("pipeline")["0.frames"].astype(np.float32)).max() < BAR


@pytest.mark.parametrize(
    ("bits", "group_size", "text_bits"),
    [(4, 32, 8), (4, 64, 8), (5, 32, 4), (5, 64, 6), (6, 32, 5), (6, 64, 4), (8, 32, 6), (8, 64, 5)],
)
def test_packed_weights_are_those_of_mx_quantize(bits, group_size, text_bits, tmp_path, listener, monkeypatch):
    monkeypatch.setattr(module, "SLICE_BYTES", 1 << 14)  # several slices for each matrix
    options = ConvertOptions(bits=bits, group_size=group_size, text_encoder_bits=text_bits)
    convert(Snapshot.open(SOURCE), tmp_path / "made", options, listener)
    for component, count, width in (("dit", 24, bits), ("t5_encoder", 14, text_bits)):
        made = mx.load(str(tmp_path / "made" / f"{component}.safetensors"))
        dense = mx.load(str(SOURCE / f"{component}.safetensors"))
        layers = packed_names(made)
        assert len(layers) == count
        assert made.keys() == dense.keys() | {f"{layer}.{part}" for layer in layers for part in ("scales", "biases")}
        for layer in layers:
            wanted = mx.quantize(dense.pop(f"{layer}.weight"), group_size=group_size, bits=width)
            for part, array in zip(("weight", "scales", "biases"), wanted, strict=True):
                assert made[f"{layer}.{part}"].dtype == array.dtype
                assert mx.array_equal(made[f"{layer}.{part}"], array).item()
        assert all(mx.array_equal(made[name], array).item() for name, array in dense.items())
    settings = json.loads((tmp_path / "made" / "config.json").read_text())
    assert settings["quantization"] == {"bits": bits, "group_size": group_size}
    assert settings["text_encoder_quantization"] == {"bits": text_bits, "group_size": group_size}
    frames = golden_frames(tmp_path / "made", listener)
    assert np.isfinite(frames).all()


def test_packed_layers_are_copied_and_never_packed_twice(tmp_path, listener):
    convert(dit_alone(), tmp_path / "first", ConvertOptions(mixed=True), listener)
    packed = Snapshot({"dit": tmp_path / "first" / "dit.safetensors"}, SOURCE, {})
    convert(packed, tmp_path / "second", ConvertOptions(), listener)
    for name in ("dit.safetensors", "config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    for options in (ConvertOptions(bits=8, group_size=32), ConvertOptions(mixed=True)):
        with pytest.raises(RequestError, match="already.*convert the dense model"):
            convert(packed, tmp_path / "third", options, listener)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_mixed_bits_load_as_the_config_says(tmp_path, listener):
    convert(Snapshot.open(SOURCE), tmp_path / "mixed", ConvertOptions(mixed=True), listener)
    convert(Snapshot.open(SOURCE), tmp_path / "q4", ConvertOptions(bits=4), listener)
    settings = json.loads((tmp_path / "mixed" / "config.json").read_text())["quantization"]
    model = load_component(fitting(Snapshot.open(tmp_path / "mixed"), "dit", "auto"), lambda: None)
    bits = {}
    for name, linear in model.named_modules():
        if isinstance(linear, PackedLinear):
            how = settings.get(name, settings)
            bits[name] = how["bits"]
            rows, inputs = linear.dense_shape
            assert linear.weight.shape == (rows, inputs * how["bits"] // 32)
            assert linear.scales.shape == (rows, inputs // how["group_size"])
    assert set(bits.values()) == {4, 8}
    sizes = [(tmp_path / name / "dit.safetensors").stat().st_size for name in ("q4", "mixed")]
    assert sizes[0] < sizes[1] < 1.1 * sizes[0]
    assert np.isfinite(golden_frames(tmp_path / "mixed", listener)).all()


def test_bits_go_where_the_error_is():
    low, high = Packing(4, 64), Packing(8, 64)
    errors = {f"blocks.{i}.ffn.0": {low: 0.3 if i == 7 else 0.1, high: 0.01} for i in range(20)}
    sizes = dict.fromkeys(errors, 1000)
    uniform = 20 * 1000 * low.weight_bytes
    chosen = choose_mixed(errors, sizes, 1.05 * uniform)
    assert [layer for layer, way in chosen.items() if way == high] == ["blocks.7.ffn.0"]
    assert set(choose_mixed(errors, sizes, uniform).values()) == {low}
    assert set(choose_mixed(errors, sizes, 3 * uniform).values()) == {high}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_is_that_of_the_dit_and_text_encoder(dtype, tmp_path, listener):
    convert(Snapshot.open(SOURCE), tmp_path / "made", ConvertOptions(dtype=dtype), listener)
    for component in COMPONENTS:
        found = {array.dtype for array in mx.load(str(tmp_path / "made" / f"{component}.safetensors")).values()}
        assert found == {getattr(mx, dtype) if component in ("dit", "t5_encoder") else mx.float32}


def test_values_that_float16_cannot_hold_are_told(tmp_path, listener):
    tensors = mx.load(str(SOURCE / "dit.safetensors"))
    tensors["head.head.bias"] = mx.full(tensors["head.head.bias"].shape, 1e5, dtype=mx.bfloat16)
    mx.save_safetensors(str(tmp_path / "dit.safetensors"), tensors)
    source = Snapshot({"dit": tmp_path / "dit.safetensors"}, SOURCE, {})
    with pytest.raises(RequestError, match="'head.head.bias' has values above 65504.*choose bfloat16"):
        convert(source, tmp_path / "made", ConvertOptions(dtype="float16"), listener)
    assert [path.name for path in tmp_path.iterdir()] == ["dit.safetensors"]


def test_groups_that_do_not_fit_are_told(tmp_path, listener):
    with pytest.raises(RequestError, match=r"ffn.2' has 320 inputs.*groups of 128.*smaller group size"):
        convert(dit_alone(), tmp_path / "made", ConvertOptions(bits=4, group_size=128), listener)


# Destinations


def test_destinations_that_would_cost_something_are_refused(tmp_path, capsys):
    before = sorted(path.name for path in SOURCE.iterdir())
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "source").symlink_to(SOURCE)
    for name, words in (
        ("empty", "exists, and nothing is overwritten"),
        ("dangling", "is a symbolic link"),
        ("link", "is a symbolic link"),
        ("source/made", "lies inside the source"),
        ("no/folder", "is not a folder"),
    ):
        assert main(["convert", str(SOURCE), str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert said.err.count("\n") == 1
    assert sorted(path.name for path in SOURCE.iterdir()) == before
    assert not (tmp_path / "gone").exists()
    assert not any((tmp_path / "empty").iterdir())


# Failures on the way


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("broken"), RuntimeError),
        (Cancelled("stop"), Cancelled),
        (OSError(errno.ENOSPC, "No space left on device"), RequestError),
    ],
)
def test_whatever_stops_it_leaves_nothing(raised, seen, tmp_path, listener, monkeypatch):
    source, write = (SOURCE / "vae.safetensors").read_bytes(), module._write_step

    def break_off(component, step, *rest):
        if component.component == "vae" and step.name.startswith("decoder.head"):
            assert [path.name for path in tmp_path.iterdir()][0].startswith(".made.part-")
            assert find_snapshots([tmp_path]) == []
            raise raised
        write(component, step, *rest)

    monkeypatch.setattr(module, "_write_step", break_off)
    with pytest.raises(seen):
        convert(Snapshot.open(SOURCE), tmp_path / "made", ConvertOptions(bits=4), listener)
    assert not any(tmp_path.iterdir())
    assert (SOURCE / "vae.safetensors").read_bytes() == source


def test_what_a_kill_leaves_is_no_model(tmp_path, listener, monkeypatch):
    """As a kill would, this skips the clean-up, at the last moment before the name is given."""
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(RuntimeError):
        convert(Snapshot.open(SOURCE), tmp_path / "made", ConvertOptions(), listener)
    (left,) = tmp_path.iterdir()
    assert {path.name for path in left.iterdir()} == FILES
    assert find_snapshots([tmp_path]) == []
    with pytest.raises(WeightsError, match="no model file"):
        Snapshot.open(tmp_path)


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path, listener, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    with pytest.raises(RequestError, match=r"needs 0.1 GB, but the disk of .* has 0.0 GB free"):
        convert(Snapshot.open(SOURCE), tmp_path / "made", ConvertOptions(), listener)
    assert not any(tmp_path.iterdir())


# Memory

MEASURE = """
import resource, sys
from pathlib import Path
from mlx_backend.runtime.device import require_mlx
require_mlx()
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_backend.interface.events import LogListener
from mlx_backend.weights.checkpoints import convert as module
from mlx_backend.weights.checkpoints.component_file import open_component

names = sys.argv[3].split(",")
source = open_component(Path(sys.argv[1]), "dit")
fresh = {"blocks.0.ffn.0": module.Packing(4, 64)}
steps = tuple(module._step(source, name, "BF16", fresh) for name in names)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
module._write_component(module.Plan(source, steps, fresh), Path(sys.argv[2]), LogListener())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, mx.get_peak_memory())
"""


def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    """Five float32 matrices of 123 MB each, one of them packed, in a process of its own."""
    tensors = mx.load(str(SOURCE / "dit.safetensors"))
    names = [f"blocks.0.ffn.{i}.weight" for i in (0, 2)] + [f"blocks.0.self_attn.{n}.weight" for n in "qkv"]
    tensors |= {name: mx.random.normal((32_000, 960)) for name in names}
    mx.save_safetensors(str(tmp_path / "in.safetensors"), tensors)
    largest = max(info.nbytes for info in read_header(tmp_path / "in.safetensors").values())
    del tensors
    mx.clear_cache()
    command = [sys.executable, "-c", MEASURE, tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    done = subprocess.run([*map(str, command), ",".join(names)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resident, in_mlx = map(int, done.stdout.split())
    resident *= 1 if sys.platform == "darwin" else 1024
    assert in_mlx < 6 * module.SLICE_BYTES
    assert resident < 1.5 * largest + 4 * module.SLICE_BYTES < len(names) * largest


# The command


def test_the_command_converts_and_tells_how_far_it_is(tmp_path, capsys):
    arguments = ["convert", str(SOURCE), str(tmp_path / "made"), "--bits", "4", "--group-size", "32"]
    assert main([*arguments, "--text-encoder-bits", "8"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path / 'made'}: 0.0")
    assert "converting the diffusion transformer 91/91" in said.err
    assert "converting the CLIP visual tower 32/32" in said.err
    assert main(["inspect", str(tmp_path / "made")]) == 0
    assert "24 layers packed" in capsys.readouterr().out
    assert main(arguments) == 2


def test_a_single_file_becomes_a_folder_of_that_part(tmp_path, capsys):
    assert main(["convert", str(SOURCE / "dit.safetensors"), str(tmp_path / "made"), "--mixed"]) == 0
    said = capsys.readouterr()
    assert "the dit alone" in said.out
    assert "measuring errors 24/24" in said.err
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"dit.safetensors", "config.json"}
    with pytest.raises(WeightsError, match="lacks vae.safetensors"):
        Snapshot.open(tmp_path / "made")
    assert Snapshot.assemble(SOURCE, {"dit": tmp_path / "made"}).path("dit").parent == tmp_path / "made"


@pytest.mark.parametrize("options", [["--bits", "3"], ["--group-size", "16"], ["--dtype", "int8"]])
def test_options_that_do_not_exist_are_told(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(SOURCE), str(tmp_path / "made"), *options])
    assert caught.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 3}, "packed in 3 bits: choose 4, 5, 6 or 8"),
        ({"text_encoder_bits": 2}, "packed in 2 bits"),
        ({"group_size": 16}, "groups of 16: choose 32, 64 or 128"),
        ({"dtype": "int8"}, "'int8' is unknown: choose one of bfloat16"),
        ({"mixed": True, "bits": 6}, "leave one out"),
    ],
)
def test_options_are_checked_on_sight(options, words):
    with pytest.raises(RequestError, match=words):
        ConvertOptions(**options)


@pytest.mark.parametrize("bits", ["5", "6", "8"])
def test_mixed_bits_and_more_than_4_exclude_each_other(bits, tmp_path, capsys):
    assert main(["convert", str(SOURCE), str(tmp_path / "made"), "--mixed", "--bits", bits]) == 2
    assert "leave one out" in capsys.readouterr().err


def test_a_stopped_command_says_so(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_step", interrupted)
    assert main(["convert", str(SOURCE), str(tmp_path / "made")]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_source_that_is_no_model_is_told(tmp_path, capsys):
    mx.save_safetensors(str(tmp_path / "other.safetensors"), {"a": mx.zeros(3)})
    assert main(["convert", str(tmp_path / "other.safetensors"), str(tmp_path / "made")]) == 2
    assert "choose a part of SCAIL-2" in capsys.readouterr().err


def test_what_a_killed_conversion_has_left_goes_after_a_while(tmp_path):
    """Gigabytes in a hidden folder; the younger one may belong to a program that is at it."""
    left = [tmp_path / f".made.part-{name}" for name in ("00", "11")]
    for folder in left:
        folder.mkdir()
        (folder / "dit.safetensors").write_bytes(bytes(10))
    for path in (left[0] / "dit.safetensors", left[0]):
        os.utime(path, (1, 1))
    assert main(["convert", str(SOURCE / "clip.safetensors"), str(tmp_path / "made")]) == 0
    assert [folder.exists() for folder in left] == [False, True]
