"""The architecture, tried: a model that is one file in members/ runs through the command line, with no other edit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support import GOLDENS, ROOT

from mlx_backend.interface.sizes import WanConfig
from mlx_backend.models.wan import WanModel
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.names.layouts import snapshot_name

TOY = '''"""A text-to-video model of random weights."""

from ..interface.variants import Defaults
from .member import Member
from .signature import Signature

MEMBER = Member(
    name="toy-t2v",
    title="Toy T2V",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=Defaults(
        driving_fps=12.0,
        width=96,
        height=64,
        steps=2,
        cfg=2.0,
        shift=5.0,
        solver="euler",
        segment_length=9,
        segment_overlap=1,
    ),
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
)
'''
SIZES = {"dim": 128, "ffn_dim": 96, "freq_dim": 32, "num_heads": 1, "num_layers": 2, "in_dim": 16, "out_dim": 16}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """The backend with one more file, and beside it a snapshot of the toy: no CLIP, the goldens' VAE and encoder."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "mlx_backend", folder / "mlx_backend", ignore=shutil.ignore_patterns("__pycache__"))
    for twin in ("wan21_t2v.py", "wan22_t2v.py"):  # whose files look the same
        (folder / "mlx_backend" / "members" / twin).unlink()
    (folder / "mlx_backend" / "members" / "toy_t2v.py").write_text(TOY)
    snapshot = folder / "toy"
    snapshot.mkdir()
    for name in ("vae.safetensors", "t5_encoder.safetensors", "tokenizer.json"):
        (snapshot / name).symlink_to(GOLDENS / "snapshot" / name)
    text_dim = mx.load(str(snapshot / "t5_encoder.safetensors"))["token_embedding.weight"].shape[1]
    config = WanConfig(**SIZES, text_dim=text_dim)
    mx.random.seed(0)
    named = tree_flatten(WanModel(config).parameters())
    weights = {snapshot_name("dit", name): 0.1 * mx.random.normal(array.shape) for name, array in named}
    mx.save_safetensors(str(snapshot / "dit.safetensors"), weights)
    (snapshot / "config.json").write_text(json.dumps(dit_settings(config)))
    return folder


def command(house: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlx_backend", *map(str, words)],
        cwd=house,
        env=os.environ | {"PYTHONPATH": str(house), "HOME": str(house)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_is_known_by_its_file(house):
    done = command(house, "inspect", "toy")
    assert "toy: a turnkey Toy T2V snapshot" in done.stdout, done.stderr
    assert "a Toy T2V diffusion transformer" in done.stdout


def test_it_is_planned(house):
    done = command(house, "plan", "--model", "toy", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["tokens"] == 3 * 4 * 6
    assert "clip" not in plan["phases"]
    assert plan["flops"]["clip"] == 0


def made(house: Path, name: str, *options: object) -> np.ndarray:
    done = command(house, "generate", "--model", "toy", "--output", name, *options)
    assert done.returncode == 0, done.stderr
    return np.load(house / name)


def test_it_makes_a_video_of_words(house):
    first = made(house, "a.npy", "--prompt", "a red puppet")
    assert first.shape == (9, 64, 96, 3)
    assert np.isfinite(first).all()
    other = made(house, "b.npy", "--prompt", "a blue wall")
    assert np.abs(first - other).max() > 1e-3, "the words are seen"
    streamed = made(house, "c.npy", "--prompt", "a red puppet", "--residency", "streamed")
    explicit = made(house, "d.npy", "--prompt", "a red puppet", "--steps", 2, "--shift", 5, "--solver", "euler")
    assert np.array_equal(first, explicit), "its own defaults stand where nothing is said"
    assert np.array_equal(first, streamed)


def test_what_it_does_not_take_is_refused(house):
    np.save(house / "picture.npy", np.zeros((1, 64, 96, 3), np.uint8))
    done = command(house, "generate", "--model", "toy", "--output", "d.npy", "--reference", "picture.npy")
    assert done.returncode == 2
    assert "Toy T2V makes videos of text alone: leave out --reference" in done.stderr
