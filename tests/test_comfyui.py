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

import mlx.core as mx
import numpy as np
import pytest
from support import GOLDENS, ROOT

from mlx_backend.media.read import read_clip

pytestmark = pytest.mark.comfyui
PORT = 8299
URL = f"http://127.0.0.1:{PORT}"
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
    made = json.loads((ROOT / "demo" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in made.values():
        if node["class_type"] == "LoadScail2MLX":
            node["inputs"]["snapshot"] = "tiny"
        if node["class_type"] == "Scail2Sampler":
            node["inputs"] |= SMALL | sampler
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
    assert sorted(templates) == ["scail2_animation", "scail2_replacement"]
    for name in templates:
        assert ask(f"/api/workflow_templates/pack/{name}.json")["nodes"]


@pytest.mark.parametrize("name", ["scail2_animation", "scail2_replacement"])
def test_a_shipped_workflow_saves_its_video(base, name):
    entry = finished(queue(graph(name)))
    assert entry["status"]["status_str"] == "success", entry["status"]
    clip = read_clip(saved(base, entry)[0])
    assert clip.frames.shape == (9, 64, 96, 3)
    assert clip.fps == 16


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
        entry = finished(queue(made))
        assert entry["status"]["status_str"] == "success", entry["status"]
        clips.append(read_clip(saved(base, entry)[0]).frames)
    assert clips[0].shape == (9, 64, 96, 3)
    assert np.array_equal(*clips)
    sampler = next(key for key, node in linked.items() if node["class_type"] == "Scail2Sampler")
    linked[sampler]["inputs"]["steps"] = ["settings", names.index("solver")]
    with pytest.raises(urllib.error.HTTPError) as caught:
        queue(linked | {"settings": settings})
    assert "received_type(COMBO) mismatch input_type(INT)" in caught.value.read().decode()


def test_core_vae_decode_gives_the_same_frames(base):
    made = graph("scail2_animation")
    ours = next(key for key, node in made.items() if node["class_type"] == "WanVaeTiledDecode")
    sampler = made[ours]["inputs"]["latent"]
    made = {key: node for key, node in made.items() if node["class_type"] not in ("CreateVideo", "SaveVideo")}
    made["core_vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}}
    made["core"] = {"class_type": "VAEDecode", "inputs": {"samples": sampler, "vae": ["core_vae", 0]}}
    for prefix, images in (("ours", [ours, 0]), ("core", ["core", 0])):
        made[f"save_{prefix}"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": prefix}}
    entry = finished(queue(made))
    assert entry["status"]["status_str"] == "success", entry["status"]
    paths = saved(base, entry)
    frames = {
        prefix: np.concatenate([read_clip(path).frames for path in sorted(paths) if path.name.startswith(prefix)])
        for prefix in ("ours", "core")
    }
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
    person = read_clip(ROOT / "assets" / "reference_mask.png").frames[0, ..., 0] == 0
    for name, background in (("coloured_driving", 1), ("coloured_reference", 0)):
        (path,) = (base / "output").glob(f"{name}*.png")
        expected = np.where(person[..., None], (0, 0, 1), background)
        assert np.array_equal(read_clip(path).frames[0], expected)
