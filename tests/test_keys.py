"""The full-size networks ask for exactly the tensors of the published checkpoints, without any weights."""

import json

import pytest
from mlx.utils import tree_flatten
from support import DATA

from mlx_backend.interface.sizes import SCAIL2_CLIP, SCAIL2_DIT, SCAIL2_UMT5, SCAIL2_VAE
from mlx_backend.members import member_named
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.weights.checkpoints.detect import clip_config, dit_config, umt5_config, vae_config
from mlx_backend.weights.formats.safetensors_file import TensorInfo
from mlx_backend.weights.names.layouts import official_name, snapshot_axes, snapshot_name

KEYS = json.loads((DATA / "keys" / "scail2_14b.json").read_text(encoding="utf-8"))
COUNTS = {"dit": 1307, "vae": 194, "t5_encoder": 242, "clip": 392}


def full_size(component):
    """Build the network; MLX's arrays are lazy, so nothing is allocated."""
    return {
        "dit": lambda: Scail2Model(SCAIL2_DIT),
        "vae": lambda: WanVAE21(SCAIL2_VAE),
        "t5_encoder": lambda: UMT5Encoder(SCAIL2_UMT5),
        "clip": lambda: ClipVision(SCAIL2_CLIP),
    }[component]()


def snapshot_shape(component, name, shape):
    return tuple(shape[axis] for axis in snapshot_axes(component, name, len(shape)))


@pytest.mark.parametrize("component", COUNTS)
def test_names_and_shapes_are_those_of_the_checkpoint(component):
    wanted = {name: snapshot_shape(component, name, shape) for name, shape in KEYS[component].items()}
    asked = {name: tuple(array.shape) for name, array in tree_flatten(full_size(component).parameters())}
    assert len(wanted) == COUNTS[component]
    assert asked == wanted


@pytest.mark.parametrize("component", COUNTS)
def test_the_table_of_names_is_a_bijection(component):
    names = {snapshot_name(component, name): name for name in KEYS[component]}
    assert len(names) == COUNTS[component]
    assert all(official_name(component, short) == name for short, name in names.items())


def test_the_table_renames_what_the_published_snapshot_renames():
    assert snapshot_name("t5_encoder", "blocks.3.ffn.gate.0.weight") == "blocks.3.ffn.gate_proj.weight"
    assert snapshot_name("dit", "blocks.3.ffn.0.weight") == "blocks.3.ffn.0.weight"


@pytest.mark.parametrize(
    ("component", "expected"),
    [("dit", SCAIL2_DIT), ("vae", SCAIL2_VAE), ("t5_encoder", SCAIL2_UMT5), ("clip", SCAIL2_CLIP)],
)
def test_the_sizes_are_read_from_the_shapes(component, expected, tmp_path):
    tensors = {
        name: TensorInfo("BF16", snapshot_shape(component, name, shape), 0) for name, shape in KEYS[component].items()
    }
    found = {
        "dit": lambda: dit_config(tmp_path, tensors, {}, member_named("scail-2-14b")),
        "vae": lambda: vae_config(tmp_path, tensors),
        "t5_encoder": lambda: umt5_config(tmp_path, tensors),
        "clip": lambda: clip_config(tmp_path, tensors, {}),
    }[component]()
    assert found == expected
