"""The transformers and VAEs of the family at full size ask for exactly the tensors of the published checkpoints."""

import json

import pytest
from mlx.utils import tree_flatten
from support import DATA

from mlx_backend.members import member_named
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.models.vae22 import WanVAE22
from mlx_backend.weights.checkpoints.detect import dit_config, vae_config
from mlx_backend.weights.formats.safetensors_file import TensorInfo
from mlx_backend.weights.names.key_maps import identify, recipes, surplus
from mlx_backend.weights.names.layouts import official_name, snapshot_axes, snapshot_name

KEYS = json.loads((DATA / "keys" / "wan_family.json").read_text(encoding="utf-8"))
KINDS = {
    "t2v_1.3b": ("wan2.1-t2v", 825),
    "t2v_14b": ("wan2.1-t2v", 1095),
    "i2v_14b": ("wan2.1-i2v", 1303),
    "flf2v_14b": ("wan2.1-flf2v", 1304),
    "t2v_a14b_expert": ("wan2.1-t2v", 1095),  # one expert looks like the older model
    "i2v_a14b_expert": ("wan2.2-i2v-a14b", 1095),
    "ti2v_5b": ("wan2.2-ti2v-5b", 825),
}


def infos(shapes):
    return {name: TensorInfo("F32", tuple(shape), 0) for name, shape in shapes.items()}


def asked(network):
    return {name: tuple(array.shape) for name, array in tree_flatten(network.parameters())}


@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_is_told_and_asks_for_what_the_checkpoint_has(kind, tmp_path):
    member_name, count = KINDS[kind]
    tensors = infos(KEYS[kind])
    found = identify(tensors)
    assert (found.component, found.member) == ("dit", member_name)
    made = recipes(found, tensors)
    assert len(made) == count == len(KEYS[kind])
    assert not surplus(found, tensors, made)
    member = member_named(member_name)
    network = member.network(dit_config(tmp_path, tensors, {}, member), None)  # lazy: nothing is allocated
    assert asked(network) == {name: tuple(shape) for name, shape in KEYS[kind].items()}


@pytest.mark.parametrize(("kind", "build", "count"), [("vae_2.1", WanVAE21, 194), ("vae_2.2", WanVAE22, 196)])
def test_a_vae_is_told_and_asks_for_what_the_checkpoint_has(kind, build, count, tmp_path):
    tensors = infos(KEYS[kind])
    found = identify(tensors)
    assert found.component == "vae"
    assert found.description.startswith(f"a Wan {kind[4:]} VAE")
    made = recipes(found, tensors)
    assert len(made) == count
    last = {name: tuple(shape[a] for a in snapshot_axes("vae", name, len(shape))) for name, shape in KEYS[kind].items()}
    assert asked(build(vae_config(tmp_path, infos(last)))) == last
    assert {name: recipe.shape(tensors) for name, recipe in made.items()} == last


@pytest.mark.parametrize("kind", KINDS)
def test_the_snapshots_names_lead_back(kind):
    assert all(official_name("dit", snapshot_name("dit", name)) == name for name in KEYS[kind])
