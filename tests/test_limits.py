"""A snapshot that knows one size only holds every run to it; and the loader's choice when nothing else is installed."""

import json
import logging
import shutil
import sys
import types
from dataclasses import replace

import pytest
from support import GOLDENS, a_sampling, generate, golden_prompts, golden_scene, golden_settings, pictures_of

from demo.pack import load_pack
from mlx_backend.interface.errors import WeightsError
from mlx_backend.interface.events import LogListener
from mlx_backend.interface.limits import LIMITS, Limits
from mlx_backend.pipelines.input_check import check_inputs
from mlx_backend.pipelines.limits import held_to_limits
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints.snapshot import Snapshot


def limited(tmp_path, limits):
    """The golden snapshot, with limits in its config.json."""
    folder = tmp_path / "limited"
    shutil.copytree(GOLDENS / "snapshot", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {LIMITS: limits}))
    return Models.of(ModelStore(Snapshot.open(folder), "auto"))


def test_without_limits_nothing_changes(models, caplog):
    scene, settings = golden_scene(0), golden_settings(0)
    with caplog.at_level(logging.INFO):
        held = held_to_limits(models.dit, scene, settings, LogListener())
    assert held[0] is scene and held[1] is settings
    assert not caplog.text


def test_a_run_gets_the_size_that_the_snapshot_knows(tmp_path, caplog):
    models = limited(tmp_path, {"width": 64, "height": 32, "segment_length": 5, "segment_overlap": 1, "cfg": 1.0})
    scene, settings = replace(golden_scene(0), width=96, height=64), replace(golden_settings(0), steps=1, cfg=5.0)
    with caplog.at_level(logging.INFO):
        held_scene, held = held_to_limits(models.dit, scene, settings, LogListener())
        frames = generate(models, golden_prompts(0), scene, settings, None, LogListener())
    assert (held_scene.width, held_scene.height) == (64, 32)
    assert (held.segment_length, held.segment_overlap, held.cfg, held.steps) == (5, 1, 1.0, 1)
    assert sorted(frames.shape[1:3]) == [32, 64]
    assert "width 64, height 32, segment_length 5, segment_overlap 1, cfg 1" in caplog.text


def test_the_input_check_shows_the_run_as_it_will_be(tmp_path):
    models = limited(tmp_path, {"width": 64, "height": 32, "segment_length": 5, "segment_overlap": 1})
    given = {"mode": "animation", "width": 96, "height": 64, "steps": 2}
    checked = check_inputs(pictures_of(golden_scene(0)), given, models.dit, models.vae, LogListener())
    assert "64 x 32 pixels" in str(checked) or "32 x 64 pixels" in str(checked)
    assert "of 5 frames" in str(checked)


@pytest.mark.parametrize("limits", [{"size": 96}, {"width": "96"}, {"cfg": 10**20}, {"cfg": float("nan")}, [96], "96"])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(WeightsError, match=r"config.json says limits = .* only numbers for width, height"):
        Limits.of({LIMITS: limits})


def test_the_input_check_finds_limits_that_are_none(tmp_path):
    models = limited(tmp_path, {"width": "96"})
    given = {"mode": "animation", "width": 96, "height": 64, "steps": 2}
    checked = check_inputs(pictures_of(golden_scene(0)), given, models.dit, None, LogListener())
    assert "config.json says limits = {'width': '96'}" in checked.errors[0] and len(checked.errors) == 1


def test_only_what_differs_is_changed():
    settings = a_sampling(cfg=1.0)
    assert Limits(width=64, cfg=1.0).changed(settings) == {}
    assert Limits(cfg=1.0).changed(a_sampling(cfg=5.0)) == {"cfg": 1.0}
    assert Limits().held(settings) == settings


# The loader's "auto"


@pytest.fixture
def loaders():
    return sys.modules[load_pack().__name__ + ".nodes.loaders"]


def with_models(monkeypatch, folder):
    folder_paths = types.SimpleNamespace(
        folder_names_and_paths={"scail2": None},
        get_folder_paths=lambda kind: [str(folder / kind)],
        get_filename_list=lambda _: [],
        get_user_directory=lambda: str(folder / "user"),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)


def test_auto_takes_the_small_model_where_none_is_installed(nodes, loaders):
    store = nodes["LoadScail2MLX"]({"snapshot": "auto", "precision": "auto"})[0].store
    assert store.snapshot.path("dit").parent == loaders.SMALL_MODEL
    assert nodes["LoadScail2MLX"]({"snapshot": loaders.SMALL, "precision": "auto"})[0].store.snapshot == store.snapshot
    assert Limits.of(store.snapshot.settings).width == 96


def test_auto_takes_what_is_installed(nodes, loaders, tmp_path, monkeypatch):
    installed = tmp_path / "scail2" / "mine"
    shutil.copytree(GOLDENS / "snapshot", installed)
    with_models(monkeypatch, tmp_path)
    store = nodes["LoadScail2MLX"]({"snapshot": "auto", "precision": "auto"})[0].store
    assert store.snapshot.path("dit").parent == installed
    load = load_pack().NODES[0]
    assert load.validate_inputs("auto") is True
    before = load.fingerprint_inputs("auto", "auto")
    shutil.rmtree(installed)
    assert load.fingerprint_inputs("auto", "auto") != before  # cached results of the other model do not stay


def test_auto_never_mixes_the_small_model_with_files_of_another(nodes, loaders):
    assert loaders.chosen_snapshot("auto", has_files=True) == loaders.ONLY_FILES
    files = {"dit": str(GOLDENS / "snapshot" / "dit.safetensors")}
    store = nodes["LoadScail2MLX"]({"snapshot": "auto", "precision": "auto", **files})[0].store
    assert set(store.snapshot.files) == {"dit"}
