"""Presets: their values, how a user's own take their place, and that they reach a run."""

import importlib
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from support import GOLDENS, ROOT, a_sampling, golden_prompts, golden_scene

from demo.pack import load_pack
from mlx_backend.cli.main import main
from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.geometry import check_size
from mlx_backend.interface.presets import PRESETS, SIZES, find_preset, size_of, upstream_shift
from mlx_backend.interface.settings import sampling_of
from mlx_backend.interface.variants import GRIDS
from mlx_backend.members.scail2.defaults import SCAIL2
from mlx_backend.pipelines.picture import ClipRequest
from mlx_backend.sampling.solvers import make_solver

FAST = a_sampling(steps=6, cfg=1.0, shift=8.0, solver="euler", grid="simple")
DISTILLED = a_sampling(steps=4, cfg=1.0, shift=5.0, solver="euler", grid="simple")
BALANCED = a_sampling(steps=16, cfg=5.0, shift=3.0, solver="dpm++")
OUTPUTS = ["steps", "cfg", "shift", "solver", "grid", "width", "height"]
ALL = {
    "override_steps": 7,
    "override_cfg": 2.5,
    "override_shift": 4.0,
    "override_solver": "dpm++",
    "override_grid": "simple",
    "override_width": 96,
    "override_height": 64,
}


def chosen(nodes, preset="quality", size="512p (896x512)", orientation="landscape", **overrides):
    values = nodes["Scail2Settings"]({"preset": preset, "size": size, "orientation": orientation, **overrides})
    return dict(zip(OUTPUTS, values, strict=True))


# The table


def at(name, width, height, own=None):
    """Return the settings of a preset at a size, with the user's own in place of some."""
    return sampling_of(find_preset(name).values(width, height) | (own or {}), SCAIL2)


def test_the_presets_are_these():
    settings = {name: at(name, 896, 512) for name in PRESETS}
    assert settings == {
        "fast": FAST,
        "distilled": DISTILLED,
        "balanced": BALANCED,
        "quality": a_sampling(),
    }
    assert [settings[name].passes for name in PRESETS] == [6, 4, 32, 80]


def test_the_distilled_recipe_steps_at_the_levels_it_was_trained_on():
    """Levels 1000, 750, 500, 250 of 1000, shifted by 5."""
    schedule = make_solver("euler", DISTILLED.steps, DISTILLED.shift, DISTILLED.grid).schedule
    expected = [5 * level / (1 + 4 * level) for level in (1, 0.75, 0.5, 0.25)]
    # sigmas are rounded to float32
    assert np.allclose(schedule.sigmas, [*expected, 0], rtol=1e-6)
    assert np.allclose(schedule.timesteps, [1000 * sigma for sigma in expected], rtol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_the_shift_follows_the_size_where_it_is_upstreams(name):
    shifts = [at(name, *size).shift for size in ((832, 480), (512, 896), (1280, 704), (704, 1280))]
    fixed = {"fast": 8, "distilled": 5}
    assert shifts == ([fixed[name]] * 4 if name in fixed else [3, 3, 5, 5])


def test_between_two_sizes_the_nearer_ones_shift_is_taken():
    assert [upstream_shift(width, 1280) for width in (32, 512, 576, 608, 704)] == [3, 3, 3, 5, 5]


def test_a_value_of_the_user_wins():
    own = {"steps": 9, "cfg": 2.0, "shift": 1.5, "solver": "unipc", "grid": "upstream"}
    for name in own:
        changed = at("fast", 896, 512, {name: own[name]})
        assert {key for key in own if getattr(changed, key) != getattr(FAST, key)} == {name}
        assert getattr(changed, name) == own[name]


def test_a_value_that_no_run_can_have_is_refused_and_not_taken_for_none():
    with pytest.raises(RequestError, match="number of steps is 0"):
        at("fast", 896, 512, {"steps": 0})


def test_sizes_and_orientations():
    assert [size_of(name, "landscape") for name in SIZES] == [(896, 512), (832, 480), (1280, 704)]
    assert [size_of(name, "portrait") for name in SIZES] == [(512, 896), (480, 832), (704, 1280)]
    for width, height in SIZES.values():
        check_size(width, height)
        assert any(f"{width}x{height}" in name for name in SIZES)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (lambda: find_preset("turbo"), "preset 'turbo' is unknown: choose one of fast, distilled, balanced, quality"),
        (lambda: size_of("4k", "landscape"), r"size '4k' is unknown: choose one of 512p \(896x512\)"),
        (lambda: size_of("512p (896x512)", "square"), "orientation 'square' is unknown: choose one of landscape"),
    ],
)
def test_unknown_names_are_refused(find, words):
    with pytest.raises(RequestError, match=words):
        find()


# The node


def test_the_node_gives_the_presets_values(nodes):
    fast = {"steps": 6, "cfg": 1.0, "shift": 8.0, "solver": "euler", "grid": "simple", "width": 896, "height": 512}
    assert chosen(nodes, "fast") == fast
    turned = {"width": 704, "height": 1280, "shift": 5.0}
    quality = {"steps": 40, "cfg": 5.0, "solver": "unipc", "grid": "upstream"}
    assert chosen(nodes, "quality", "704p (1280x704)", "portrait") == quality | turned


def test_each_override_changes_its_value_alone(nodes):
    before = chosen(nodes, "fast")
    for name, value in (ALL | {"override_grid": "upstream"}).items():
        assert chosen(nodes, "fast", **{name: value}) == before | {name.removeprefix("override_"): value}
    assert chosen(nodes, "fast", **ALL) == {name.removeprefix("override_"): value for name, value in ALL.items()}


def test_an_overridden_size_is_neither_turned_nor_without_its_shift(nodes):
    made = chosen(nodes, "quality", orientation="portrait", override_width=1280, override_height=704)
    assert (made["width"], made["height"], made["shift"]) == (1280, 704, 5.0)


def test_untouched_the_node_is_the_untouched_sampler(nodes):
    """All first choices give what the sampler has by itself."""
    inputs = {item.id: item for item in schema("Scail2Settings").inputs}
    sampler = {item.id: item.default for item in schema("Scail2Sampler").inputs if item.id in OUTPUTS}
    defaults = {name: item.default for name, item in inputs.items() if hasattr(item, "default")}
    assert dict(zip(OUTPUTS, nodes["Scail2Settings"](defaults), strict=True)) == sampler


def schema(node_id):
    return next(cls.GET_SCHEMA() for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == node_id)


def test_its_outputs_fit_the_samplers_inputs():
    """Same names and socket types, so that each connects; combos offer on both sides what the solvers know."""
    inputs = {item.id: item for item in schema("Scail2Sampler").inputs}
    outputs = schema("Scail2Settings").outputs
    assert [output.id for output in outputs] == OUTPUTS
    for output in outputs:
        assert output.io_type == inputs[output.id].io_type
        if output.io_type == "COMBO":
            assert output.options == inputs[output.id].options


def test_grid_stands_last_on_the_sampler():
    """Saved workflows keep values by position: what is new stands behind everything older."""
    ids = [item.id for item in schema("Scail2Sampler").inputs]
    assert ids.index("grid") > ids.index("draft")
    grid = next(item for item in schema("Scail2Sampler").inputs if item.id == "grid")
    assert grid.optional
    assert grid.advanced


def test_the_node_says_what_it_chose_and_what_nobody_tried(nodes, caplog):
    with caplog.at_level("INFO", "scail2_mlx"):
        chosen(nodes, "fast")
        chosen(nodes, "balanced")
    fast, balanced = (record.message for record in caplog.records)
    assert fast.startswith("euler on the simple grid, 6 steps, cfg 1, shift 8, 896x512: 6 passes")
    assert "lightx2v at 0.8 and DPO at 1" in fast
    assert "LoRA" not in balanced
    assert all("Nobody has tried the presets on the real weights." in told for told in (fast, balanced))


def test_the_tooltip_and_the_help_name_the_values_of_the_table():
    tooltip = next(item.tooltip for item in schema("Scail2Settings").inputs if item.id == "preset")
    assert "fast: euler, simple grid, 6 steps, cfg 1, shift 8, LoRA lightx2v 0.8, LoRA DPO 1." in tooltip
    page = (ROOT / "web" / "docs" / "Scail2Settings.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} "))
        values = [cell.strip() for cell in row.strip("|").split("|")][1:6]
        shift = "3, or 5 at 704p" if preset.shift is None else f"{preset.shift:g}"
        assert values == [preset.solver, preset.grid, f"{preset.steps}", f"{preset.cfg:g}", shift]


def test_a_model_without_loras_is_refused_what_needs_them(nodes):
    model = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})[0]
    with pytest.raises(Exception, match="made for the LoRA lightx2v .* put SCAIL-2 LoRA between"):
        chosen(nodes, "fast", model=model)
    assert chosen(nodes, "fast", model=replace(model, loras=("a LoRA",))) == chosen(nodes, "fast")
    assert chosen(nodes, "quality", model=model) == chosen(nodes, "quality")
    small = nodes["LoadScail2MLX"]({"snapshot": "the small puppet model of this pack", "precision": "auto"})[0]
    assert chosen(nodes, "fast", model=small) == chosen(nodes, "fast"), "it knows its own recipe"


# The command line


def command(tmp_path, *options):
    for name in ("r", "d"):
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 64, 96, 3), np.uint8))
    files = {"--model": GOLDENS / "snapshot", "--reference": tmp_path / "r.npy", "--driving": tmp_path / "d.npy"}
    files["--output"] = tmp_path / "o.npy"
    return ["generate", *(str(part) for pair in files.items() for part in pair), "--no-cache", *map(str, options)]


@pytest.fixture
def told(monkeypatch):
    """Return what settings `generate` would have sampled with; nothing runs."""
    from mlx_backend.pipelines import generate as pipeline
    from mlx_backend.pipelines import pictures

    seen = []

    def prepare(models, prompts, scene, settings, session, start=None):
        seen.append(settings)

    monkeypatch.setattr(pictures, "prepare", prepare)
    monkeypatch.setattr(pipeline, "generate", lambda *_: np.zeros((1, 64, 96, 3), np.float32))
    return seen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), a_sampling()),
        (("--width", 1280, "--height", 704), a_sampling()),
        (("--grid", "simple"), a_sampling(grid="simple")),
        (("--pose-rope", "midpoint"), a_sampling(pose_rope="midpoint")),
        (("--preset", "fast"), FAST),
        (("--preset", "balanced"), BALANCED),
        (("--preset", "quality", "--width", 1280, "--height", 704), a_sampling(shift=5.0)),
        (("--preset", "quality", "--width", 1280, "--height", 704, "--shift", 3), a_sampling()),
        (("--steps", 4, "--preset", "fast", "--seed", 3), replace(FAST, steps=4, seed=3)),
    ],
)
def test_options_win_over_the_preset(options, expected, tmp_path, told):
    lora = tmp_path / "a.safetensors"
    lora.write_bytes(b"")
    assert main(command(tmp_path, *options, "--lora", lora)) == 0
    assert told == [expected]


@pytest.mark.parametrize("name", ["fast", "distilled"])
def test_a_preset_made_for_loras_is_refused_without_them(name, tmp_path, told, capsys):
    assert main(command(tmp_path, "--preset", name)) == 2
    said = capsys.readouterr().err
    assert f"The preset '{name}' is made for the LoRA lightx2v" in said
    assert "--lora, or choose a preset that needs none (balanced, quality)" in said
    assert main(command(tmp_path, "--preset", name, "--cfg", 5)) == 0, "guided, it is another recipe"


def test_a_preset_that_is_unknown_ends_the_command(tmp_path, capsys):
    assert main(command(tmp_path, "--preset", "turbo")) == 2
    assert "'turbo' is unknown: choose one of fast, distilled, balanced, quality" in capsys.readouterr().err
    assert not (tmp_path / "o.npy").exists()


# A run


class Asked(Exception):
    """Raised in place of sampling."""


def test_the_sampler_hands_on_what_the_settings_say(nodes, monkeypatch):
    def ask(models, text, scene, settings, session, **clip):
        raise Asked(settings, scene.width, scene.height)

    module = importlib.import_module(f"{load_pack().__name__}.mlx_backend.pipelines.pictures")
    monkeypatch.setattr(module, "prepare", ask)
    inputs = {item.id: item.default for item in schema("Scail2Sampler").inputs if hasattr(item, "default")}
    picture = torch.zeros(1, 64, 96, 3)
    model = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})[0]
    nothing = ClipRequest(None, None)
    others = {"model": model, "vae": None, "text": None, "clip_features": nothing}
    pictures = {"reference_image": picture, "driving_video": picture}
    with pytest.raises(Asked) as caught:
        nodes["Scail2Sampler"](inputs | others | pictures | chosen(nodes, "fast", "704p (1280x704)"))
    settings, width, height = caught.value.args
    assert asdict(settings) == asdict(FAST)
    assert (width, height) == (1280, 704)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_grid_reaches_the_sampling(grid, models, listener, monkeypatch):
    """A run on the tiny snapshot steps on the grid that was asked for."""
    from support import generate

    from mlx_backend.pipelines import denoising

    made = []

    def recorded(*asked):
        made.append(make_solver(*asked))
        return made[-1]

    monkeypatch.setattr(denoising, "make_solver", recorded)
    settings = a_sampling(steps=3, cfg=1.0, shift=8.0, solver="unipc", grid=grid)
    frames = generate(models, golden_prompts(2), golden_scene(2), settings, None, listener)
    assert np.isfinite(frames).all()
    assert {solver.schedule for solver in made} == {make_solver("unipc", 3, 8.0, grid).schedule}
