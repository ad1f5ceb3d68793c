"""WanModel as every member of the Wan 2.1 and 2.2 family, against passes of the published models at tiny sizes."""

import json
from dataclasses import replace
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from wan_weights import WAN, drawn, recipe

from mlx_backend.interface.sizes import WanConfig
from mlx_backend.models.wan import WanModel

BAR = 1e-4  # float32; the published programs and diffusers differ by 1.6e-5 from the goldens
CASES = json.loads((WAN / "cases.json").read_text(encoding="utf-8"))


@cache
def model(kind, expert):
    """Return a model of the recipe with its weights as the published files have them: rounded to bf16."""
    row = recipe()["models"][kind]
    label = next(iter(row["experts"])) if expert is None else next(name for name in row["experts"] if expert in name)
    sizes = {name: value for name, value in row["config"].items() if name not in ("_class_name", "model_type")}
    shapes = row["shapes"]
    if "img_emb.proj.1.weight" in shapes:
        sizes["clip_dim"] = shapes["img_emb.proj.1.weight"][0]
    if "img_emb.emb_pos" in shapes:
        sizes["image_positions"] = shapes["img_emb.emb_pos"][1]
    made = WanModel(WanConfig(**sizes, text_dim=shapes["text_embedding.0.weight"][1]))
    weights = {name: mx.array(values).astype(mx.bfloat16) for name, values in drawn(label, shapes).items()}
    made.load_weights([(name, array.astype(mx.float32)) for name, array in weights.items()])
    return made


def passed(file, index, *, knows_clean=True):
    """Return the output of our model and the golden one."""
    case, tensors = CASES[file][index], load_file(WAN / f"{file}.safetensors")
    golden = {name.split(".", 1)[1]: array for name, array in tensors.items() if name.startswith(f"{index}.")}
    network, x = model(case["kind"], case["expert"]), mx.array(golden["x"])
    clip = mx.array(golden["clip"].reshape(-1, golden["clip"].shape[-1])) if "clip" in golden else None
    conditioning = network.condition(network.embed_context(mx.array(golden["text"]), clip), x.shape[1:])
    if "y" in golden:
        conditioning = replace(conditioning, channels=mx.array(golden["y"]))
    if case["per_token"] and knows_clean:
        assert set(np.unique(golden["t"])) == {0.0, case["t"]}
        conditioning = replace(conditioning, clean=int((golden["t"] == 0).sum()))
    return np.array(network(x, case["t"], conditioning, lambda: None)), golden["out"]


@pytest.mark.parametrize("index", range(len(CASES["dit"])))
def test_a_pass_is_the_published_one(index):
    ours, golden = passed("dit", index)
    assert np.abs(ours - golden).max() < BAR


@pytest.mark.parametrize("index", range(len(CASES["shapes"])))
def test_other_grids_and_times_are_too(index):
    ours, golden = passed("shapes", index)
    assert np.abs(ours - golden).max() < BAR


def test_the_time_of_clean_tokens_counts():
    """Without it the bar would not let the pass through."""
    index = next(i for i, case in enumerate(CASES["dit"]) if case["per_token"])
    ours, golden = passed("dit", index, knows_clean=False)
    assert np.abs(ours - golden).max() > 100 * BAR
