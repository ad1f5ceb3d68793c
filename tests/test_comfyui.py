"""In a real ComfyUI: `COMFYUI_DIR=/path/to/ComfyUI python -m pytest -m comfyui`.

COMFYUI_PYTHON names the Python that has ComfyUI's packages (default: the one that runs the tests).
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import av
import mlx.core as mx
import numpy as np
import pytest
from support import GOLDENS, ROOT
from wan_folders import Folders

from demo.graph import NEED_MORE_MODELS, read_graph
from mlx_backend.media.read import read_video
from tools import samples
from tools.comfy_nodes import CORE as KNOWN_CORE
from tools.draw_locales import read
from tools.workflows import WORKFLOWS
from training.measures import decibels
from world.scenes import Example

pytestmark = pytest.mark.comfyui
PORT = 8299
URL = f"http://127.0.0.1:{PORT}"
KEPT = ("LoadImage", "Scail2LoadVideo", "CreateVideo", "SaveVideo")
SMALL = {"width": 96, "height": 64, "steps": 2, "max_frames": 9}


def ask(path, data=None):
    request = urllib.request.Request(URL + path, data=None if data is None else json.dumps(data).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Start a server on a scratch folder that holds the pack, the golden snapshot and its VAE as core reads it."""
    folder = os.environ.get("COMFYUI_DIR")
    assert folder, "COMFYUI_DIR must name a ComfyUI checkout"
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "models/scail2", "models/vae", "input", "output", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "pack").symlink_to(ROOT)
    shutil.copy(ROOT / "tests" / "core_features_node.py", base / "custom_nodes")
    (base / "models" / "scail2" / "tiny").symlink_to(GOLDENS / "snapshot")
    write_core_vae(base / "models" / "vae" / "tiny_vae.safetensors")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(PORT), "--base-directory", str(base)]
    command += ["--database-url", f"sqlite:///{base / 'comfy.db'}", "--disable-api-nodes", "--disable-auto-launch"]
    with (base / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(180):
            try:
                ask("/system_stats")
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, (base / "log.txt").read_text()[-3000:]
                time.sleep(0.5)
        yield base
    finally:
        server.terminate()
        server.wait(timeout=30)


def write_core_vae(path):
    """Write the golden VAE in the official layout, convolutions channels-first."""
    tensors = mx.load(str(GOLDENS / "snapshot" / "vae.safetensors"))
    to_first = {5: (0, 4, 1, 2, 3), 4: (0, 3, 1, 2)}
    official = {
        name: mx.contiguous(array.transpose(*to_first[array.ndim])) if name.endswith("weight") else array
        for name, array in tensors.items()
    }
    mx.save_safetensors(str(path), official)


def graph(name, **sampler):
    """Return a shipped workflow with the tiny snapshot and small settings."""
    made = read_graph(name)
    for node in made.values():
        if node["class_type"] == "LoadScail2MLX":
            node["inputs"]["snapshot"] = "tiny"
        if node["class_type"] == "Scail2Sampler":
            node["inputs"] |= SMALL | sampler
        if node["class_type"] == "Scail2InputCheck":
            node["inputs"] |= SMALL
    return made


def queue(made):
    return ask("/prompt", {"prompt": made})["prompt_id"]


def finished(prompt, seconds=120):
    for _ in range(seconds * 4):
        history = ask(f"/history/{prompt}")
        if prompt in history:
            return history[prompt]
        time.sleep(0.25)
    raise AssertionError("the prompt did not end")


def saved(base, entry):
    files = [file for output in entry["outputs"].values() for file in output.get("images", [])]
    return [base / "output" / file["subfolder"] / file["filename"] for file in files]


def test_the_pack_is_loaded_with_its_templates(base):
    info = ask("/object_info")
    ours = {"LoadScail2MLX", "Scail2T5Encode", "Scail2ClipEncode", "Scail2Sampler", "WanVaeTiledDecode"}
    assert ours | {"Scail2LoraLoader", "Scail2Convert"} <= set(info)
    assert "tiny" in info["LoadScail2MLX"]["input"]["required"]["snapshot"][1]["options"]
    templates = ask("/api/workflow_templates")["pack"]
    assert sorted(templates) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    for name in templates:
        assert ask(f"/api/workflow_templates/pack/{name}.json")["nodes"]


def test_translations_are_served(base):
    served = ask("/i18n")
    for language in ("en", "ja", "zh"):
        held = read(language)
        assert served[language] == held["main"] | {name: held[name] for name in ("nodeDefs", "commands")}


def test_the_core_nodes_are_as_the_builder_knows_them(base):
    """The table in tools/comfy_nodes.py has their inputs in the server's order; it may lack what only advises."""
    info = ask("/object_info")
    for name, known in KNOWN_CORE.items():
        found = info[name]
        assert (found["output"], found["output_name"]) == (known["output"], known["output_name"]), name
        shown = found["display_name"] or name
        assert (shown, found["output_node"]) == (known["display_name"], known["output_node"]), name
        for group, inputs in known["input"].items():
            real = found["input"].get(group, {})
            inputs = {key: value for key, value in inputs.items() if "." not in key}
            assert list(real) == list(inputs), name
            for key, (kind, options) in inputs.items():
                kinds = (kind, list) if kind == "COMBO" else (kind,)
                assert real[key][0] == kind or type(real[key][0]) in kinds, (name, key)
                for option in ("default", "min", "max"):
                    if kind != "COMFY_DYNAMICCOMBO_V3" and option in options:
                        assert real[key][1][option] == options[option], (name, key, option)


# The one node knows large sizes only; it has a test of its own.
@pytest.mark.parametrize(
    "name", sorted(WORKFLOWS.keys() - {*NEED_MORE_MODELS, "scail2_still_image", "scail2_one_node"})
)
def test_a_shipped_workflow_saves_its_video(base, name):
    entry = finished(queue(graph(name)))
    assert entry["status"]["status_str"] == "success", entry["status"]
    (path,) = (path for path in saved(base, entry) if path.suffix == ".mp4")
    clip = read_video(path)
    is_long = name == "scail2_long_video"
    # 9 frames at 16 per second last as long as 13.5 at 24
    assert len(clip.frames) in ((13, 14) if is_long else (9,))
    assert clip.frames.shape[1:] == (64, 96, 3)
    assert clip.fps == (24 if is_long else 16)
    with av.open(path) as container:
        assert len(container.streams.audio) == is_long
        for stream in container.streams.audio:
            assert abs(stream.duration * stream.time_base - len(clip.frames) / 24) < 0.1


@pytest.fixture
def nothing_installed(base):
    """Take the golden snapshot away for a while."""
    link = base / "models" / "scail2" / "tiny"
    link.unlink()
    yield
    link.symlink_to(GOLDENS / "snapshot")


def test_a_newcomer_can_queue_a_workflow_as_it_is(base, nothing_installed):
    """The small model of the pack makes the sample's puppet dance."""
    made = read_graph("scail2_animation")
    entry = finished(queue(made), 400)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (path,) = saved(base, entry)
    frames = read_video(path).frames
    assert frames.shape == (samples.FRAME_COUNT, 96, 96, 3)
    target = Example.of(samples.solo(), "animation", samples.times(), 96).target
    still = decibels(np.repeat(target.pictures[:1], len(frames), axis=0), target.pictures)
    assert decibels(frames * 255, target.pictures) > still  # nearer to the dance than a picture that stands still


def test_the_still_image_is_one_picture(base):
    entry = finished(queue(graph("scail2_still_image", max_frames=1)))
    assert entry["status"]["status_str"] == "success", entry["status"]
    (path,) = saved(base, entry)
    assert read_video(path).frames.shape == (1, 64, 96, 3)


def decoder(made):
    """The name of the node that decodes."""
    return next(key for key, node in made.items() if node["class_type"] == "WanVaeTiledDecode")


def pictures(base, made, outputs):
    """The frames of each output by name, saved as pictures: the video encoder does not always write the same bytes."""
    made = {key: node for key, node in made.items() if node["class_type"] not in ("CreateVideo", "SaveVideo")}
    for name, images in outputs.items():
        made[f"save_{name}"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}
    entry = finished(queue(made))
    assert entry["status"]["status_str"] == "success", entry["status"]
    paths = sorted(saved(base, entry))
    return {
        name: np.concatenate([read_video(path).frames for path in paths if path.name.startswith(name)])
        for name in outputs
    }


def test_settings_reach_the_sampler_by_links(base):
    """Every output of Scail2Settings connects to the sampler's widget, and gives what the typed values give."""
    names = ("steps", "cfg", "shift", "solver", "grid", "width", "height")
    values = dict(zip(names, (2, 1.0, 8.0, "euler", "simple", 96, 64), strict=True))
    overrides = {"override_steps": 2, "override_width": 96, "override_height": 64}
    choices = {"preset": "fast", "size": "512p (832x480)", "orientation": "portrait"}
    settings = {"class_type": "Scail2Settings", "inputs": choices | overrides}
    linked = graph("scail2_animation", **{name: ["settings", i] for i, name in enumerate(names)})
    clips = []
    for made in (linked | {"settings": settings}, graph("scail2_animation", **values)):
        clips.append(pictures(base, made, {"clip": [decoder(made), 0]})["clip"])
    assert clips[0].shape == (9, 64, 96, 3)
    assert np.array_equal(*clips)
    sampler = next(key for key, node in linked.items() if node["class_type"] == "Scail2Sampler")
    linked[sampler]["inputs"]["steps"] = ["settings", names.index("solver")]
    with pytest.raises(urllib.error.HTTPError) as caught:
        queue(linked | {"settings": settings})
    assert "received_type(COMBO) mismatch input_type(INT)" in caught.value.read().decode()


def test_core_vae_decode_gives_the_same_frames(base):
    made = graph("scail2_animation")
    ours = decoder(made)
    made["core_vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}}
    made["core"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": made[ours]["inputs"]["latent"], "vae": ["core_vae", 0]},
    }
    frames = pictures(base, made, {"ours": [ours, 0], "core": ["core", 0]})
    assert frames["ours"].shape == frames["core"].shape == (9, 64, 96, 3)
    # both are saved as 8-bit pictures, so equal numbers may round apart by one step
    assert np.abs(frames["ours"] - frames["core"]).max() < 1.5 / 255


def test_cancel_stops_the_run_and_the_next_one_works(base):
    long = queue(graph("scail2_animation", steps=400, seed=5))
    time.sleep(3)
    started = time.monotonic()
    ask("/interrupt", {})
    entry = finished(long)
    assert time.monotonic() - started < 10
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    again = finished(queue(graph("scail2_animation", seed=6)))
    assert again["status"]["status_str"] == "success"


def test_a_cancelled_run_goes_on_when_it_is_queued_again(base):
    """And what it kept is told and cleared by the routes that the page's menu uses."""
    kept = base / "output" / "scail2_resume"
    made = graph("scail2_animation", steps=40, seed=77, segment_length=5, segment_overlap=1)  # two segments
    before = set(kept.glob("*"))
    long = queue(made)
    for _ in range(400):
        if set(kept.glob("*.safetensors")) - before:
            break
        time.sleep(0.05)
    ask("/interrupt", {})
    assert finished(long)["status"]["messages"][-1][0] == "execution_interrupted"
    first = set(kept.glob("*.safetensors")) - before
    assert first
    written = {path: path.stat().st_mtime_ns for path in first}
    entry = finished(queue(made))
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert {path: path.stat().st_mtime_ns for path in first} == written
    assert len(set(kept.glob("*.safetensors")) - before) == 2
    assert "made before with the same inputs" in (base / "log.txt").read_text()
    held = ask("/scail2_mlx/caches")["segments"]
    assert held["files"] >= 2
    assert ask("/scail2_mlx/caches", {"clear": ["segments"]})["segments"] == held
    assert ask("/scail2_mlx/caches")["segments"] == {"files": 0, "bytes": 0}


def test_an_error_reaches_the_user_as_a_sentence(base):
    made = graph("scail2_animation")
    for node in made.values():
        if node["class_type"] == "Scail2Sampler":
            node["inputs"]["start_frame"] = 1000
    entry = finished(queue(made))
    message = entry["status"]["messages"][-1][1]["exception_message"]
    assert "The start frame is 1000, but the driving video has 33 frames" in message


def test_the_converter_runs_alone_and_overwrites_nothing(base):
    chosen = {"source": "tiny", "dtype": "bfloat16", "bits": "8", "group_size": "32", "text_encoder_bits": "none"}
    convert = {"class_type": "Scail2Convert", "inputs": chosen | {"name": "packed"}}
    entry = finished(queue({"1": convert}))
    assert entry["status"]["status_str"] == "success", entry["status"]
    made = base / "models" / "scail2" / "packed"
    assert entry["outputs"]["1"]["text"][0].startswith(f"{made}: 0.0")
    assert "packed" in ask("/object_info")["LoadScail2MLX"]["input"]["required"]["snapshot"][1]["options"]
    before = (made / "dit.safetensors").stat().st_mtime_ns
    with pytest.raises(urllib.error.HTTPError) as caught:
        queue({"1": convert})
    assert "exists already, and nothing is overwritten" in caught.value.read().decode()
    assert (made / "dit.safetensors").stat().st_mtime_ns == before
    shutil.rmtree(made)
    assert finished(queue({"1": convert}))["status"]["status_str"] == "success"
    assert (made / "dit.safetensors").is_file()  # not taken from ComfyUI's cache
    named = {"class_type": "PrimitiveString", "inputs": {"value": "../out"}}
    entry = finished(queue({"0": named, "1": convert | {"inputs": chosen | {"name": ["0", 0]}}}))
    assert "cannot be the name of the new folder" in entry["status"]["messages"][-1][1]["exception_message"]
    assert not (base / "models" / "out").exists()


def test_the_samples_lie_in_the_input_folder(base):
    offered = sorted(path.name for path in (base / "input").iterdir() if path.is_file())
    samples = [path.name for path in (ROOT / "assets").iterdir() if path.suffix in (".png", ".mp4")]
    assert offered == sorted(f"scail2_{name}" for name in samples)


def test_coloured_masks_are_made_and_shown(base):
    mask = {"driving": ["1", 0], "reference": ["1", 0], "mode": "replacement", "order": "left_to_right"}
    made = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "scail2_reference_mask.png"}},
        "2": {"class_type": "Scail2ColoredMask", "inputs": mask | {"people": "", "people_per_mask": 1}},
    }
    for output, name in enumerate(("coloured_driving", "coloured_reference")):
        made[name] = {"class_type": "SaveImage", "inputs": {"images": ["2", output], "filename_prefix": name}}
    entry = finished(queue(made))
    assert entry["status"]["status_str"] == "success", entry["status"]
    (shown,) = entry["outputs"]["2"]["images"]
    assert (base / "temp" / shown["filename"]).is_file()
    person = read_video(ROOT / "assets" / "reference_mask.png").frames[0, ..., 0] == 0
    for name, background in (("coloured_driving", 1), ("coloured_reference", 0)):
        (path,) = (base / "output").glob(f"{name}*.png")
        expected = np.where(person[..., None], (0, 0, 1), background)
        assert np.array_equal(read_video(path).frames[0], expected)


def test_the_input_check_shows_its_sheet_and_its_report(base):
    """Connected as the sampler is; nothing else of the workflow runs but the loaders of what it looks at."""
    made = graph("scail2_animation")
    sampler = next(node["inputs"] for node in made.values() if node["class_type"] == "Scail2Sampler")
    taken = ("model", "vae", "reference_image", "driving_video", "reference_mask", "driving_mask")
    taken += ("mode", "width", "height", "segment_length", "segment_overlap", "start_frame", "max_frames")
    taken += ("follow_orientation", "black_background", "steps", "cfg")
    inputs = {name: sampler[name] for name in taken} | {"driving_fps": 30.0}
    made = {key: node for key, node in made.items() if not node["class_type"].startswith(("Save", "Create"))}
    entry = finished(queue(made | {"check": {"class_type": "Scail2InputCheck", "inputs": inputs}}))
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert list(entry["outputs"]) == ["check"]
    (report,), (shown,) = (entry["outputs"]["check"][kind] for kind in ("text", "images"))
    assert report.startswith("The sampler would run, with 1 warning.\n\nWarning: The driving video has 30 frames")
    assert "The driving mask shows blue in all of 9 frames." in report
    sheet = read_video(base / "temp" / shown["filename"]).frames
    assert sheet.shape[1] > 4 * 256


def test_a_report_has_the_number_of_its_video(base):
    """ComfyUI counts files of a prefix: the report, which comes first, must not take the video's number."""
    made = graph("scail2_animation", seed=11)
    sampler = next(key for key, node in made.items() if node["class_type"] == "Scail2Sampler")
    report = {"class_type": "Scail2Report", "inputs": {"report": [sampler, 1], "filename_prefix": "video/told_%width%"}}
    for number in (1, 2):
        for node in made.values():
            if node["class_type"] == "SaveVideo":
                node["inputs"]["filename_prefix"] = "video/told_%width%"
        made[sampler]["inputs"]["seed"] += 1
        entry = finished(queue(made | {"report": report}))
        assert entry["status"]["status_str"] == "success", entry["status"]
        assert saved(base, entry)[0].name == f"told_96_{number:05}_.mp4"
        written = base / "output" / "video" / f"told_96_report_{number:05}.json"
        assert written.read_text(encoding="utf-8") == entry["outputs"]["report"]["text"][0]
        assert json.loads(written.read_text(encoding="utf-8"))["run"]["seed"] == made[sampler]["inputs"]["seed"]


@pytest.mark.parametrize("kind", ["t2v", "ti2v", "i2v-a14b"])
def test_the_wan_nodes_make_a_clip(base, kind):
    """Words, a first picture in another VAE's latent, and two experts, each from its folder to a saved video."""
    folder = Folders(base / "models" / "scail2" / "wan")("original", kind)
    loaded = graph("scail2_animation")
    photo = next(node for node in loaded.values() if node["class_type"] == "LoadImage")
    name = folder.relative_to(base / "models" / "scail2").as_posix()
    values = {"width": 64, "height": 64, "frames": 5, "steps": 2, "cfg": 1.0, "cfg_low": 0.0, "shift": 5.0}
    values |= {"solver": "euler", "seed": 1, "exact_size": True}
    values |= {} if kind == "t2v" else {"start_image": ["photo", 0]}
    made = {
        "load": {"class_type": "WanMLXLoader", "inputs": {"model_folder": name, "precision": "float32"}},
        "photo": photo,
        "text": {
            "class_type": "WanMLXPrompt",
            "inputs": {"model": ["load", 0], "text_encoder": ["load", 1], "prompt": "a fox"}
            | {"negative_prompt": "", "own_negative": True},
        },
        "sample": {
            "class_type": "WanMLXSampler",
            "inputs": {"model": ["load", 0], "vae": ["load", 3], "text": ["text", 0]} | values,
        },
        "decode": {
            "class_type": "WanVaeTiledDecode",
            "inputs": {"vae": ["load", 3], "latent": ["sample", 0], "tile_size": 0, "tile_overlap": 64},
        },
        "video": {"class_type": "CreateVideo", "inputs": {"images": ["decode", 0], "fps": ["sample", 1]}},
        "save": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["video", 0], "filename_prefix": f"video/{kind}", "format": "mp4", "codec": "h264"},
        },
    }
    entry = finished(queue(made), 300)
    assert entry["status"]["status_str"] == "success", entry["status"]
    clip = read_video(saved(base, entry)[0])
    assert clip.frames.shape == (5, 64, 64, 3)
    assert clip.fps == (24 if kind == "ti2v" else 16)


def test_one_node_makes_a_clip_of_the_videos_rate_and_length(base):
    plain = graph("scail2_animation")
    of_type = {node["class_type"]: key for key, node in plain.items()}
    sampler = plain[of_type["Scail2Sampler"]]["inputs"]
    made = {key: node for key, node in plain.items() if node["class_type"] in KEPT}
    pictures = {name: sampler[name] for name in ("reference_image", "reference_mask", "driving_video")}
    choices = {"snapshot": "tiny", "prompt": "a fox", "negative_prompt": "", "mode": "animation", "preset": "fast"}
    choices |= {"size": "512p (832x480)", "orientation": "as the reference", "seed": 0, "fps": 24.0, "max_frames": 2}
    pictures["driving_video"] = [pictures["driving_video"][0], 0]  # images, whose rate the node is told
    made["animate"] = {"class_type": "Scail2Animate", "inputs": pictures | choices}
    made[of_type["CreateVideo"]]["inputs"] |= {"images": ["animate", 0], "fps": ["animate", 1]}
    made["report"] = {
        "class_type": "Scail2Report",
        "inputs": {"report": ["animate", 2], "filename_prefix": "video/one"},
    }
    with pytest.raises(urllib.error.HTTPError) as refused:
        queue(made)
    said = refused.value.read().decode()
    assert "made for the LoRA lightx2v" in said, json.loads(said)["node_errors"]
    made["animate"]["inputs"]["use_loras"] = False
    entry = finished(queue(made), 300)
    assert entry["status"]["status_str"] == "success", entry["status"]
    clip = read_video(saved(base, entry)[0])
    assert clip.frames.shape[0] == 2
    assert clip.fps == 24
    read = json.loads(entry["outputs"]["report"]["text"][0])
    assert read["settings"]["steps"] == 6
    assert read["loras"] == []


def core_graph():
    """Return a graph of ComfyUI's own nodes as its template has them, from pictures to what its sampler takes."""
    files = {"reference": "reference.png", "reference_mask": "reference_mask.png"}
    made = {name: {"class_type": "LoadImage", "inputs": {"image": f"scail2_{file}"}} for name, file in files.items()}
    for name, file in (("driving", "driving.mp4"), ("driving_mask", "driving_mask.mp4")):
        made[f"{name}_file"] = {"class_type": "LoadVideo", "inputs": {"file": f"scail2_{file}"}}
        made[name] = {"class_type": "GetVideoComponents", "inputs": {"video": [f"{name}_file", 0]}}
    made["features"] = {"class_type": "RandomFeatures", "inputs": {"seed": 3}}
    made["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}}
    inputs = {"positive": ["features", 0], "negative": ["features", 1], "clip_vision_output": ["features", 2]}
    inputs |= {"vae": ["vae", 0], "width": 96, "height": 64, "length": 9, "batch_size": 1, "replacement_mode": False}
    inputs |= {"pose_video": ["driving", 0], "pose_video_mask": ["driving_mask", 0]}
    inputs |= {"reference_image": ["reference", 0], "reference_image_mask": ["reference_mask", 0]}
    inputs |= {"pose_strength": 1.0, "pose_start": 0.0, "pose_end": 0.5}
    inputs |= {"video_frame_offset": 0, "previous_frame_count": 5}
    made["scail"] = {"class_type": "WanSCAILToVideo", "inputs": inputs}
    made["load"] = {"class_type": "LoadScail2MLX", "inputs": {"snapshot": "tiny", "precision": "auto"}}
    return made


def frames_of(base, entry, prefix):
    assert entry["status"]["status_str"] == "success", entry["status"]
    paths = sorted(path for path in saved(base, entry) if path.name.startswith(prefix))
    return np.concatenate([read_video(path).frames for path in paths])


def test_our_sampler_replaces_cores_in_its_graph(base):
    made = core_graph()
    inputs = {"model": ["load", 0], "positive": ["scail", 0], "negative": ["scail", 1], "latent_image": ["scail", 2]}
    inputs |= {"seed": 4, "steps": 3, "cfg": 2.0, "shift": 8.0, "solver": "euler", "grid": "simple"}
    made["sampler"] = {"class_type": "Scail2CoreSampler", "inputs": inputs | {"pose_rope": "midpoint"}}
    made["core"] = {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["vae", 0]}}
    tiles = {"tile_size": 0, "tile_overlap": 64}
    made["ours"] = {
        "class_type": "WanVaeTiledDecode",
        "inputs": {"latent": ["sampler", 0], "vae": ["load", 3]} | tiles,
    }
    for name in ("core", "ours"):
        inputs = {"images": [name, 0], "filename_prefix": f"in_core_graph_{name}"}
        made[f"save_{name}"] = {"class_type": "SaveImage", "inputs": inputs}
    entry = finished(queue(made))
    frames = [frames_of(base, entry, f"in_core_graph_{name}") for name in ("core", "ours")]
    assert frames[0].shape == (9, 64, 96, 3)
    assert frames[0].std() > 0.01
    # both are saved as 8-bit pictures, so equal numbers may round apart by one step
    assert np.abs(frames[0] - frames[1]).max() < 1.5 / 255


def test_our_sampler_takes_cores_text_and_clip_features(base):
    features = core_graph()["features"]
    linked = {"text": ["features", 0], "negative": ["features", 1], "clip_features": ["features", 2]}
    made = graph("scail2_animation", cfg=2.0, **linked) | {"features": features}
    unused = ("Scail2T5Encode", "Scail2ClipEncode")
    entry = finished(queue({key: node for key, node in made.items() if node["class_type"] not in unused}))
    assert entry["status"]["status_str"] == "success", entry["status"]
