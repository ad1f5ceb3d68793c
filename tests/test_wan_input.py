"""What the Wan family refuses, each in one sentence before anything is loaded."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from wan_folders import Folders
from wan_weights import WAN

from mlx_backend.cli.main import main
from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.checkpoints.snapshot import Snapshot

TOKENIZER = WAN / "tokenizer.json"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.npy"
    np.save(path, np.full((1, 32, 48, 3), 99, np.uint8))
    return path


def refusal(capsys, tmp_path, model: Path, *words: object) -> str:
    """Return the one sentence with which a `generate` command ends."""
    command = ["generate", "--model", model, "--output", tmp_path / "out.npy", "--prompt", "a", "--no-cache"]
    size = ["--width", 48, "--height", 32, "--frames", 5, "--steps", 1]
    assert main([str(word) for word in (*command, *size, *words)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith(".")
    assert not (tmp_path / "out.npy").exists()
    return said


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("t2v", ["--image", "PICTURE"], "Wan2.1 T2V takes no first picture"),
        ("i2v", [], "Wan2.1 I2V needs the first picture of the clip: give it with --image"),
        ("i2v", ["--image", "PICTURE", "--last-image", "PICTURE"], "Wan2.1 I2V takes no last picture"),
        ("flf2v", ["--image", "PICTURE"], "Wan2.1 FLF2V needs the last picture"),
        ("ti2v", ["--last-image", "PICTURE"], "Wan2.2 TI2V-5B takes no last picture"),
        ("i2v-a14b", ["--last-image", "PICTURE"], "needs the first picture"),
        ("t2v", ["--reference", "PICTURE"], "no use for a reference picture"),
        ("t2v", ["--width", 50], "The width is 50 pixels, but Wan2.1 T2V needs a multiple of 16: use 48 or 64"),
        ("ti2v", ["--width", 48], "Wan2.2 TI2V-5B needs a multiple of 32: use 32 or 64"),
        ("t2v", ["--frames", 1200], "1200 frames need more than one segment"),
        ("t2v", ["--cfg", 5, "--cfg-low", 3], "but Wan2.1 T2V is one model: leave out --cfg-low"),
        ("t2v", ["--lora-high", "a.safetensors"], "are for models of two experts"),
        ("t2v-a14b", ["--lora", "a.safetensors"], "name it with --lora-high or --lora-low"),
        ("t2v", ["--noise", "PICTURE"], "The noise has the shape [1, 32, 48, 3]"),
        ("flf2v", ["--image", "PICTURE", "--last-image", "PICTURE", "--frames", 1], "at least 2 frames"),
    ],
)
def test_what_a_model_does_not_take_is_refused(folders, picture, capsys, tmp_path, kind, options, words):
    given = [picture if option == "PICTURE" else option for option in options]
    assert words in refusal(capsys, tmp_path, folders("original", kind), *given)


def test_a_vae_of_the_other_kind_is_refused(folders, capsys, tmp_path):
    wrong = folders("original", "ti2v") / "Wan2.2_VAE.pth"
    said = refusal(capsys, tmp_path, folders("original", "t2v"), "--vae", wrong)
    assert f"{wrong} is a VAE of 48 channels, but Wan2.1 T2V works on latents of 16" in said


def dit_of(folder: Path, *names: str) -> Path:
    """Return the transformer of a folder whose path has these words."""
    return next(p for p in folder.rglob("*.safetensors") if all(n in str(p.relative_to(folder)) for n in names))


def test_an_expert_alone_is_asked_for_the_other(folders):
    for kind, title in (("t2v-a14b", "Wan2.2 T2V-A14B"), ("i2v-a14b", "Wan2.2 I2V-A14B")):
        whole = folders("comfy", kind)
        low = dit_of(whole, "diffusion_models", "low")
        with pytest.raises(
            WeightsError, match=f"the low-noise expert of {title}, but the high-noise expert is missing"
        ):
            Snapshot.assemble(whole, {"dit": low})


def test_both_experts_the_same_are_refused(folders):
    whole = folders("comfy", "t2v-a14b")
    high, low = (dit_of(whole, "diffusion_models", role) for role in ("high", "low"))
    with pytest.raises(WeightsError, match="Both experts are the same"):
        Snapshot.assemble(whole, {"dit": high, "low_noise": high})
    copy = low.with_name("copy.safetensors")
    save_file(load_file(high), copy)
    try:
        with pytest.raises(WeightsError, match="Both experts are the same"):
            Snapshot.assemble(whole, {"dit": high, "low_noise": copy})
    finally:
        copy.unlink()


def test_a_file_that_only_the_user_can_tell_is_a_question(folders, tmp_path):
    """The same tensors are Wan 2.1 T2V, or one of two experts."""
    whole = folders("original", "t2v")
    unnamed = tmp_path / "model.safetensors"
    tensors = {}
    for shard in whole.glob("diffusion_pytorch_model*.safetensors"):
        tensors |= mx.load(str(shard))
    mx.save_safetensors(str(unnamed), tensors)
    others = {"vae": whole / "Wan2.1_VAE.pth", "t5_encoder": next(whole.glob("models_t5*")), "tokenizer": TOKENIZER}
    with pytest.raises(WeightsError, match="say --kind wan2.1-t2v, or name both experts") as caught:
        Snapshot.assemble(None, {"dit": unnamed, **others})
    assert str(unnamed) in str(caught.value)
    said = Snapshot.assemble(None, {"dit": unnamed, **others}, kind="wan2.1-t2v")
    assert said.member == "wan2.1-t2v"
    named = unnamed.rename(tmp_path / "wan2.1_t2v_14B.safetensors")
    assert Snapshot.assemble(None, {"dit": named, **others}).low_noise is None


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", "high"),
        ("Wan2_2-I2V-A14B-LOW_fp8.safetensors", "low"),
        ("Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf", "high"),
        ("low_noise_model/diffusion_pytorch_model.safetensors", "low"),
        ("transformer_2/diffusion_pytorch_model.safetensors", "low"),
        ("highres_fix.safetensors", None),
        ("slow_motion.safetensors", None),
        ("high_low_merged.safetensors", None),
    ],
)
def test_an_expert_is_told_by_whole_words(name, role):
    from mlx_backend.weights.checkpoints.experts import role as told

    assert told(Path("models") / name, Path("models")) == role


def test_the_defaults_are_the_published_ones():
    from mlx_backend.members import member_named

    names = {
        "t2v": "wan2.1-t2v",
        "i2v": "wan2.1-i2v",
        "flf2v": "wan2.1-flf2v",
        "t2v-a14b": "wan2.2-t2v-a14b",
        "i2v-a14b": "wan2.2-i2v-a14b",
        "ti2v": "wan2.2-ti2v-5b",
    }
    cases = json.loads((WAN / "cases.json").read_text(encoding="utf-8"))
    for kind, name in names.items():
        member, wanted = member_named(name), cases["defaults"][kind]
        low, high = wanted["guide"] if isinstance(wanted["guide"], list) else (None, wanted["guide"])
        made = member.defaults
        found = (made.steps, made.shift, made.cfg, made.cfg_low, made.frames, made.driving_fps)
        assert found == (wanted["steps"], wanted["shift"], high, low, wanted["frames"], wanted["fps"])
        assert (made.shift_480p, member.boundary) == (wanted.get("shift_480p"), wanted.get("boundary", 0))
        assert made.negative == cases["negative"][kind]


def test_the_shape_of_a_picture_gives_the_published_size():
    from mlx_backend.members.wan.sizes import covered_size, stretched_size

    sizes = json.loads((WAN / "cases.json").read_text(encoding="utf-8"))["sizes"]
    for width, height, area, *expected in sizes["i2v"]:
        assert stretched_size(width, height, area, 8, 2) == tuple(expected)
    for width, height, area, *expected in sizes["ti2v"]:
        assert covered_size(width, height, area, 32) == tuple(expected)
