"""The node that does it all: the same frames as the single nodes, at the driving clip's rate, with a preset's LoRAs."""

import importlib
import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support import GOLDENS, ROOT, Golden, golden_cases, golden_file
from test_nodes import image

from demo.pack import load_pack
from mlx_backend.interface.presets import LORA_FILES, PRESETS
from mlx_backend.interface.requests import LoraRequest

SNAPSHOT = str(GOLDENS / "snapshot")
NTSC = 30000 / 1001
# A LATENT holds denormalised numbers, so between the single nodes each is multiplied, added to, and back again: a few
# parts in ten million of numbers up to 10, which the decoder passes on.
ROUNDING = 1e-5


def module(name):
    load_pack()
    return importlib.import_module(f"{load_pack().__name__}.{name}")


@pytest.fixture
def small(monkeypatch):
    """A size and a preset that the tiny model runs in a second."""
    presets = module("mlx_backend.interface.presets")
    monkeypatch.setitem(presets.SIZES, "tiny", (96, 64))
    monkeypatch.setitem(presets.PRESETS, "brief", presets.Preset(steps=2, cfg=2.0, solver="unipc"))


def choices(**changes):
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    return {
        "snapshot": SNAPSHOT,
        "reference_image": picture,
        "driving_video": picture,
        "prompt": "a fox",
        "negative_prompt": "",
        "mode": "animation",
        "preset": "brief",
        "size": "tiny",
        "orientation": "as the reference",
        "seed": 3,
        "fps": 16.0,
        "max_frames": 0,
    } | changes


def golden_pictures(index):
    golden, case = Golden(golden_file("pipeline"), index), golden_cases("pipeline")[index]
    names = {"reference_image": "reference", "driving_video": "driving"}
    names |= {name: name for name in ("reference_mask", "driving_mask")}
    pictures = {key: image(golden, name) for key, name in names.items()}
    return pictures | {"mode": "replacement" if case["replace"] else "animation", "prompt": case["prompt"]}


def chained(nodes, chosen):
    """What Scail2Animate does, by single nodes."""
    model, text_encoder, clip_vision, vae = nodes["LoadScail2MLX"](
        {"snapshot": chosen["snapshot"], "precision": "auto"}
    )
    prompts = {name: chosen[name] for name in ("prompt", "negative_prompt")}
    (text,) = nodes["Scail2T5Encode"]({"text_encoder": text_encoder} | prompts)
    (clip,) = nodes["Scail2ClipEncode"]({"clip_vision": clip_vision, "reference_image": chosen["reference_image"]})
    names = ("steps", "cfg", "shift", "solver", "grid", "width", "height")
    asked = {name: chosen[name] for name in ("preset", "size")} | {"orientation": "landscape"}
    settings = dict(zip(names, nodes["Scail2Settings"](asked), strict=True))
    driving, mask, _, at, _ = nodes["Scail2ResampleFps"](
        {
            "images": chosen["driving_video"],
            "source_fps": chosen["fps"],
            "target_fps": 16.0,
            "mask": chosen["driving_mask"],
        }
    )
    latent, _ = nodes["Scail2Sampler"](
        {name: chosen[name] for name in ("reference_image", "reference_mask", "mode", "seed")}
        | {"model": model, "vae": vae, "text": text, "clip_features": clip}
        | {"driving_video": driving, "driving_mask": mask, "segment_length": 81, "segment_overlap": 5}
        | {"start_frame": 0, "max_frames": 0, "follow_orientation": True, "black_background": True}
        | settings
    )
    decoder = {"vae": vae, "latent": latent, "tile_size": 0, "tile_overlap": 64}
    (images,) = nodes["WanVaeTiledDecode"](decoder)
    return nodes["Scail2ResampleFps"]({"images": images, "source_fps": at, "target_fps": chosen["fps"]})[0]


@pytest.mark.parametrize(("index", "fps"), [(0, 16.0), (4, 30.0)])
def test_it_gives_what_the_single_nodes_give(index, fps, nodes, small):
    chosen = choices(fps=fps, **golden_pictures(index))
    images, rate, report = nodes["Scail2Animate"](chosen)
    single = chained(nodes, chosen)
    assert (images - single).abs().max() < ROUNDING
    assert len(images) == len(chosen["driving_video"])
    assert rate == fps
    run = json.loads(report)
    assert run["run"]["mode"] == chosen["mode"]
    assert run["prompts"]["positive"] == chosen["prompt"]
    assert {"encoding the prompt", "sampling", "decoding"} <= {phase["phase"] for phase in run["phases"]}


def test_both_modes_were_among_them():
    assert {golden_cases("pipeline")[index]["replace"] for index in (0, 4)} == {True, False}


# What is asked of the backend, without running it


class Run:
    """Stands in for the run: keeps what it is asked, and returns frames whose pixels are their numbers."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(module("mlx_backend.pipelines.pictures"), "prepare", lambda *asked: asked)
        monkeypatch.setattr(module("mlx_backend.pipelines.generate"), "generate", self)
        monkeypatch.setattr(module("mlx_backend.pipelines.recording"), "report_run", lambda *_: "{}")
        self.stores = []
        loaders = module("nodes.animate")
        new_store = loaders.new_store
        monkeypatch.setattr(
            loaders, "new_store", lambda found, **how: self.stores.append(new_store(found, **how)) or self.stores[-1]
        )
        self.error = None

    def __call__(self, asked, tiling, session):
        self.models, self.prompts, scene, self.settings, _ = asked
        self.scene, self.recording, self.kept = scene, session.listener, session.kept
        models, recording = self.models, self.recording
        models.vae.store.get("vae", recording)
        if self.error is not None:
            raise self.error
        numbers = np.arange(len(scene.driving), dtype=np.float32).reshape(-1, 1, 1, 1)
        return np.broadcast_to(numbers, (len(scene.driving), 64, 96, 3)).copy()


@pytest.fixture
def run(monkeypatch, small):
    return Run(monkeypatch)


def clip(frames, *channels):
    numbers = torch.arange(frames, dtype=torch.float32)
    return numbers.reshape(-1, 1, 1, *[1] * len(channels)).expand(-1, 8, 12, *channels)


@pytest.mark.parametrize("fps", [8.0, 12.5, 16.0, 23.976, NTSC, 50.0, 60.0])
@pytest.mark.parametrize(("frames", "most", "used"), [(1, 0, 1), (30, 0, 30), (81, 0, 81), (81, 20, 20), (5, 9, 5)])
def test_as_many_frames_come_out_at_the_clips_own_rate(frames, most, used, fps, nodes, run):
    pictures = {"driving_video": clip(frames, 3) / 100, "driving_mask": clip(frames)}
    images, rate, _ = nodes["Scail2Animate"](choices(fps=fps, max_frames=most, **pictures))
    assert len(images) == used
    assert rate == pytest.approx(fps, abs=1e-9)
    sent = torch.from_numpy(run.scene.driving[:, 0, 0, 0] * 100)
    assert torch.equal(sent.round(), torch.from_numpy(run.scene.driving_mask[:, 0, 0]))  # the mask goes with the frames
    assert abs(len(sent) / 16 - used / fps) <= 0.5 / 16 + 1e-6 or len(sent) == 1
    assert sent.max() < used
    shown = sent[images[:, 0, 0, 0].long()].round()  # of each frame that came out: the driving frame it was made from
    late = torch.arange(used) - shown
    assert late.min() >= 0
    assert late.max() < 1 + 1.5 * fps / 16  # a frame of each rate, and half a one where the last is held at the end


def test_at_16_the_clip_is_handed_on_as_it_is(nodes, run):
    driving = clip(9, 3) / 100
    images, _, _ = nodes["Scail2Animate"](choices(driving_video=driving))
    assert run.scene.driving.tobytes() == driving.contiguous().numpy().tobytes()
    assert images[:, 0, 0, 0].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("orientation", "size", "follows"),
    [("as the reference", (96, 64), True), ("landscape", (96, 64), False), ("portrait", (64, 96), False)],
)
def test_the_orientation_is_the_references_or_as_chosen(orientation, size, follows, nodes, run):
    nodes["Scail2Animate"](choices(orientation=orientation))
    assert (run.scene.width, run.scene.height) == size
    assert run.scene.follow_orientation is follows


def test_the_preset_and_the_seed_reach_the_run(nodes, run):
    nodes["Scail2Animate"](choices(seed=11, negative_prompt="rain"))
    assert (run.settings.steps, run.settings.cfg, run.settings.seed) == (2, 2.0, 11)
    assert (run.prompts.positive, run.prompts.negative) == ("a fox", "rain")


def test_no_network_stays_in_memory(nodes, run):
    nodes["Scail2Animate"](choices())
    run.error = ValueError("stopped by the test")
    with pytest.raises(ValueError, match="stopped"):
        nodes["Scail2Animate"](choices())
    assert [store.loaded for store in run.stores] == [(), ()]


def test_a_mask_of_another_length_is_refused_before_anything_is_opened(nodes, run):
    with pytest.raises(Exception, match="The driving mask has 1 frame and the images 9"):
        nodes["Scail2Animate"](choices(driving_video=clip(9, 3), driving_mask=clip(1), snapshot="gone"))
    assert not run.stores


def test_a_snapshot_that_is_gone_is_refused(nodes, run):
    with pytest.raises(Exception, match="There is no snapshot 'gone'"):
        nodes["Scail2Animate"](choices(snapshot="gone"))
    node = next(cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == "Scail2Animate")
    assert "There is no snapshot 'gone'" in node.validate_inputs("gone", "quality")
    assert node.validate_inputs(SNAPSHOT, "quality") is True


# LoRAs


@pytest.fixture
def loras(tmp_path, monkeypatch):
    """ComfyUI's folder of LoRAs; returns what puts files into it."""
    folder_paths = types.SimpleNamespace(
        folder_names_and_paths={"loras": None},
        get_folder_paths=lambda kind: [str(tmp_path)],
        get_filename_list=lambda kind: sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")),
        get_full_path=lambda kind, name: str(tmp_path / name),
        get_output_directory=lambda: str(tmp_path / "output"),
        get_user_directory=lambda: str(tmp_path / "user"),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)

    def put(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            save_file({"diffusion_model.blocks.0.norm3.diff_b": np.zeros(256, np.float32)}, tmp_path / name)
        return tmp_path

    return put


def test_the_presets_loras_are_used_where_they_lie(nodes, run, loras):
    folder = loras(
        "wan/Lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors",
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",
        "wan2.1_SCAIL_2_DPO_lora_bf16.safetensors",
        "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors",
    )
    nodes["Scail2Animate"](choices(preset="fast"))
    used = [(lora.path.relative_to(folder).as_posix(), lora.strength) for lora in run.models.dit.loras]
    assert used == [
        ("wan/Lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors", 0.8),
        ("wan2.1_SCAIL_2_DPO_lora_bf16.safetensors", 1.0),
    ]
    assert run.recording.warnings == []
    assert any("wan2.1_SCAIL_2_DPO_lora_bf16.safetensors is used at 1" in note for note in run.recording.notes)
    nodes["Scail2Animate"](choices(preset="fast", use_loras=False))
    assert run.models.dit.loras == ()
    assert run.kept == folder / "output" / "scail2_resume"


def test_loras_that_are_not_there_are_named(nodes, run, loras):
    folder = loras("lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors")
    nodes["Scail2Animate"](choices(preset="fast"))
    assert [lora.path.parent for lora in run.models.dit.loras] == [folder]
    (warning,) = run.recording.warnings
    assert warning.startswith("Not found in models/loras: DPO (wan2.1_SCAIL_2_DPO_lora_bf16")
    nodes["Scail2Animate"](choices(preset="quality"))
    assert run.models.dit.loras == ()
    assert run.recording.warnings == []


def test_a_preset_without_the_lora_that_it_needs_is_refused_before_the_queue_and_in_a_run(nodes, run, loras):
    loras("bias-aware-dpo-lora.pt", "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors")
    node = next(cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == "Scail2Animate")
    for name in ("fast", "distilled"):
        assert f"The preset '{name}' is made for the LoRA lightx2v" in node.validate_inputs(SNAPSHOT, name)
        with pytest.raises(Exception, match="put it in models/loras"):
            nodes["Scail2Animate"](choices(preset=name))
    assert not run.stores
    assert node.validate_inputs(SNAPSHOT, "fast", use_loras=False) is True
    assert node.validate_inputs(SNAPSHOT, "quality") is True
    assert node.validate_inputs(SNAPSHOT, None) is True


def test_each_lora_of_the_presets_has_published_names_which_the_help_tells():
    named = {lora for preset in PRESETS.values() for lora, _ in preset.loras}
    assert named == set(LORA_FILES)
    page = (ROOT / "web" / "docs" / "Scail2Animate.md").read_text(encoding="utf-8")
    for file in (file for files in LORA_FILES.values() for file in files):
        assert f"`{file}`" in page
    settings = (ROOT / "web" / "docs" / "Scail2Settings.md").read_text(encoding="utf-8")
    for files in LORA_FILES.values():
        assert f"`{files[0]}`" in settings


def test_it_runs_again_when_a_file_of_the_model_or_a_lora_changes(loras, tmp_path):
    animate = module("nodes.animate").Scail2Animate
    folder = tmp_path / "model"
    shutil.copytree(SNAPSHOT, folder)
    chosen = choices(preset="fast", snapshot=str(folder), fps=None)

    def now(**changes):
        return animate.fingerprint_inputs(**chosen | changes)

    first = now()
    assert now() == first
    loras("wan2.1_SCAIL_2_DPO_lora_bf16.safetensors")
    second = now()
    assert second != first
    assert now(use_loras=False) == first
    (folder / "dit.safetensors").touch()
    assert now() != second
    assert now(preset=None, snapshot=None) == ()


def test_a_request_is_what_the_lora_node_makes(nodes, run, loras):
    """One path for LoRAs: the request of Scail2LoraLoader at the same strength is equal."""
    file = "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors"
    folder = loras(file)
    nodes["Scail2Animate"](choices(preset="distilled"))
    model = nodes["LoadScail2MLX"]({"snapshot": SNAPSHOT, "precision": "auto"})[0]
    lora = {"lora": file, "strength": 1.0, "allow_unknown": False}
    (one,) = nodes["Scail2LoraLoader"]({"model": model} | lora)
    assert run.models.dit.loras == one.loras
    assert one.loras[0].path == LoraRequest(folder / lora["lora"]).path


@pytest.mark.parametrize("process", ["own", "shared"])
def test_the_networks_run_where_the_node_is_told(process, nodes, run):
    nodes["Scail2Animate"](choices(process=process))
    assert [store.elsewhere is not None for store in run.stores] == [process == "own"]
