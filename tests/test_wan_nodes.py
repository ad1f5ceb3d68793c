"""The nodes of the Wan family against the published runs, on tiny weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from wan_folders import Folders
from wan_weights import WAN

BAR = 6e-4  # frames stored as float16, which alone is 2.5e-4
EVERY = 4  # rows and columns of the stored frames
CASES = json.loads((WAN / "cases.json").read_text(encoding="utf-8"))
OTHERS = {
    "seed": 0,
    "step_cache": "off",
    "cache_threshold": 0.05,
    "guidance_until": 1.0,
    "draft": False,
    "grid": "upstream",
    "resume": False,
    "exact_size": False,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("wan"))


def loaded(nodes, folder: Path):
    return nodes["WanMLXLoader"]({"model_folder": str(folder), "precision": "float32"})


def sampled(nodes, folder: Path, case: dict, pictures: dict, **changes):
    model, text_encoder, clip_vision, vae = loaded(nodes, folder)
    words = {"model": model, "text_encoder": text_encoder, "prompt": case["prompt"]}
    (text,) = nodes["WanMLXPrompt"](words | {"negative_prompt": case["negative"], "own_negative": False})
    high, low = case["guide"][::-1] if isinstance(case["guide"], list) else (case["guide"], 0.0)
    width, height = CASES["size"]
    given = {"model": model, "vae": vae, "text": text, "width": width, "height": height, "frames": case["frames"]}
    given |= {"steps": case["steps"], "cfg": high, "cfg_low": low, "shift": case["shift"], "solver": case["solver"]}
    given |= OTHERS | {"seed": case["seed"], "clip_vision": clip_vision} | pictures | changes
    latent, fps, report = nodes["WanMLXSampler"](given)
    (images,) = nodes["WanVaeTiledDecode"]({"vae": vae, "latent": latent, "tile_size": 0, "tile_overlap": 64})
    return images.numpy(), fps, json.loads(report)


@pytest.mark.parametrize("index", [0, 5, 8, 11])
def test_the_nodes_make_the_published_runs(nodes, folders, index):
    """One of words, one of first and last picture with CLIP, one of two experts, one with the VAE of Wan 2.2."""
    case = CASES["pipeline"][index]
    golden = {
        name.split(".", 1)[1]: array
        for name, array in load_file(WAN / "pipeline.safetensors").items()
        if name.startswith(f"{index}.")
    }
    named = {"image": "start_image", "last_image": "end_image"}
    pictures = {
        node: torch.from_numpy(golden[name].astype(np.float32) / 255)[None]
        for name, node in named.items()
        if name in golden
    }
    images, fps, report = sampled(nodes, folders("original", case["kind"]), case, pictures)
    assert np.abs(images[:, ::EVERY, ::EVERY] - golden["frames"].astype(np.float32)).max() < BAR
    assert fps == CASES["defaults"][case["kind"]]["fps"]
    assert report


def test_the_negative_prompt_is_the_models_own_unless_it_is_switched_off(nodes, folders):
    model, text_encoder, *_ = loaded(nodes, folders("original", "i2v"))
    given = {"model": model, "text_encoder": text_encoder, "prompt": "a", "negative_prompt": ""}
    (own,) = nodes["WanMLXPrompt"](given | {"own_negative": True})
    (none,) = nodes["WanMLXPrompt"](given | {"own_negative": False})
    assert own.prompts.negative == CASES["negative"]["i2v"]
    assert none.prompts.negative == ""


def test_a_lora_goes_to_the_expert_that_its_name_or_the_role_says(nodes, folders, tmp_path):
    model, *_ = loaded(nodes, folders("original", "t2v-a14b"))
    paths = [tmp_path / name for name in ("a_high_noise.safetensors", "a_low_noise.safetensors", "plain.safetensors")]
    for path in paths:
        path.write_bytes(b"")
    high, low, plain = map(str, paths)

    def added(lora: str, role: str):
        given = {"model": model, "lora": lora, "strength": 1.0, "role": role, "allow_unknown": False}
        (made,) = nodes["WanMLXLora"](given)
        return len(made.loras), len(made.low_loras)

    assert added(high, "by the file's name") == (1, 0)
    assert added(low, "by the file's name") == (0, 1)
    assert added(plain, "low") == (0, 1)
    assert added(plain, "both") == (1, 1)
    with pytest.raises(Exception, match="its name does not tell: choose the role"):
        added(plain, "by the file's name")
    with pytest.raises(Exception, match="use Wan LoRA, which has a role"):
        nodes["Scail2LoraLoader"]({"model": model, "lora": plain, "strength": 1.0, "allow_unknown": False})


def test_the_samplers_tell_each_others_models(nodes, folders, snapshot):
    case = CASES["pipeline"][0]
    with pytest.raises(Exception, match="Wan2.1 T2V takes no first picture"):
        sampled(nodes, folders("original", "t2v"), case, {"start_image": torch.zeros(1, 64, 96, 3)})
    with pytest.raises(Exception, match="which has a sampler of its own: use SCAIL-2 Sampler"):
        sampled(nodes, snapshot.path("dit").parent, case, {})
