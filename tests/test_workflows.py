"""The shipped workflows: the UI files, their API forms, and the nodes they name belong together."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from support import ROOT

from demo.pack import load_pack
from demo.stand_ins import CoreNodes

NAMES = ("scail2_animation", "scail2_replacement")
NOTES = ("Note", "MarkdownNote")
# Nodes that are not part of the plain workflows.
BESIDES = {
    "Scail2LoraLoader",
    "Scail2Convert",
    "Scail2Doctor",
    "Scail2Settings",
    "Scail2ColoredMask",
    "Scail2ResampleFps",
    "Scail2FitReference",
}
# Widgets that only the page has: it does not send them, or sends an empty preview.
PAGE_ONLY = ("control_after_generate", "upload", "video-preview")
# What the few core nodes take and give, as ComfyUI describes nodes.
CORE = {
    "LoadImage": ({"image": (["a"], {"image_upload": True})}, {}, ["IMAGE", "MASK"]),
    "LoadVideo": ({"file": (["a"], {"video_upload": True})}, {}, ["VIDEO"]),
    "GetVideoComponents": ({"video": ("VIDEO", {})}, {}, ["IMAGE", "AUDIO", "FLOAT"]),
    "CreateVideo": (
        {"images": ("IMAGE", {}), "fps": ("FLOAT", {"default": 30.0, "min": 1.0, "max": 120.0})},
        {"audio": ("AUDIO", {}), "bit_depth": ("INT", {"default": 8, "min": 8, "max": 10})},
        ["VIDEO"],
    ),
    "SaveVideo": (
        {"video": ("VIDEO", {}), "filename_prefix": ("STRING", {}), "format": (["auto", "mp4"], {})},
        {"format.codec": (["auto", "h264"], {}), "codec": (["auto", "h264"], {})},
        ["VIDEO"],
    ),
}


def ui(name):
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def api(name):
    return json.loads((ROOT / "demo" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def object_info(tmp_path):
    """Describe the nodes of the workflows as a server's /object_info does; files count as present."""
    described = {}
    for cls in load_pack().NODES:
        info = cls.GET_NODE_INFO_V1()
        described[cls.GET_SCHEMA().node_id] = info if isinstance(info, dict) else asdict(info)
    files = sorted(
        {
            value
            for name in NAMES
            for node in api(name).values()
            for value in node["inputs"].values()
            if isinstance(value, str) and value.startswith("scail2_")
        }
    )
    for class_type, (required, optional, outputs) in CORE.items():
        required = {key: ([files, spec[1]] if spec[0] == ["a"] else spec) for key, spec in required.items()}
        described[class_type] = {
            "name": class_type,
            "display_name": class_type,
            "category": "core",
            "input": {"required": required, "optional": optional},
            "input_order": {"required": list(required), "optional": list(optional)},
            "output": outputs,
            "output_name": outputs,
            "output_is_list": [False] * len(outputs),
            "output_node": class_type == "SaveVideo",
        }
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(described))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_api_form_equals_the_page_form(name):
    graph, page = api(name), ui(name)
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    shown = {str(node["id"]): node for node in page["nodes"] if node["type"] not in NOTES}
    assert graph.keys() == shown.keys()
    for key, node in shown.items():
        inputs = {k: v for k, v in (node.get("widgets_values_named") or {}).items() if k not in PAGE_ONLY}
        inputs |= {i["name"]: links[i["link"]] for i in node["inputs"] if i.get("link") is not None}
        sent = {k: v for k, v in graph[key]["inputs"].items() if k not in PAGE_ONLY}
        assert (graph[key]["class_type"], sent) == (node["type"], inputs)


@pytest.mark.parametrize("name", NAMES)
def test_widgets_stand_in_the_order_of_the_schema(name):
    """Older pages read `widgets_values` by position alone."""
    for node in ui(name)["nodes"]:
        if node.get("widgets_values_named"):
            assert node["widgets_values"] == list(node["widgets_values_named"].values())[: len(node["widgets_values"])]


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_ours_or_a_known_core_node(name):
    ours = {cls.GET_SCHEMA().node_id for cls in load_pack().NODES}
    core = CoreNodes(Path(), Path()).by_class().keys()
    assert core == CORE.keys()
    used = {node["type"] for node in ui(name)["nodes"]} - set(NOTES)
    assert used <= ours | core
    assert ours - BESIDES <= used


@pytest.mark.parametrize("name", NAMES)
def test_the_modes_masks_and_models_fit(name):
    mode = name.removeprefix("scail2_")
    values = [value for node in api(name).values() for value in node["inputs"].values() if isinstance(value, str)]
    masks = sorted(value for value in values if "mask" in value and value.startswith("scail2_"))
    suffix = "" if mode == "animation" else "_replacement"
    assert masks == [f"scail2_driving_mask{suffix}.mp4", f"scail2_reference_mask{suffix}.png"]
    assert all((ROOT / "assets" / mask.removeprefix("scail2_")).is_file() for mask in masks)
    loader = next(node for node in ui(name)["nodes"] if node["type"] == "LoadScail2MLX")
    from mlx_backend.weights.hub import FILES

    assert sorted(model["name"] for model in loader["properties"]["models"]) == sorted(FILES)
    for model in loader["properties"]["models"]:
        assert model["url"] == f"https://huggingface.co/SceneWorks/scail2-mlx/resolve/main/{model['name']}"
    sampler = next(node for node in api(name).values() if node["class_type"] == "Scail2Sampler")
    assert sampler["inputs"]["mode"] == mode


@pytest.mark.parametrize("name", NAMES)
def test_each_workflow_has_a_thumbnail(name):
    from PIL import Image

    with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 256


def test_only_one_folder_can_be_taken_for_templates():
    """ComfyUI serves the first of these folders that it finds, and answers 404 for files of another."""
    shadowing = {"example_workflows", "example", "examples", "workflow"}
    assert not shadowing & {path.name for path in ROOT.iterdir()}


def comfy(tmp_path, *arguments):
    tool = Path(sys.executable).parent / "comfy"
    if not tool.is_file():
        tool = shutil.which("comfy")
    assert tool, "comfy-cli is one of the packages in requirements-dev.txt"
    return subprocess.run(
        [str(tool), "--skip-prompt", *arguments],
        cwd=ROOT,
        env=os.environ | {"DO_NOT_TRACK": "1", "HOME": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_comfy_cli_accepts_the_workflow(name, tmp_path):
    info = object_info(tmp_path)
    path = f"demo/api/{name}.json"
    done = comfy(tmp_path, "--json", "workflow", "validate", "--workflow", path, "--input", str(info))
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["data"]["errors"] == []
    assert answer["data"]["valid"] is True


def test_comfy_cli_accepts_the_pack(tmp_path):
    done = comfy(tmp_path, "node", "validate")
    assert "All validation checks passed" in done.stdout + done.stderr


def test_requirements_and_project_agree():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.replace('"', "'") for line in lines if line and not line.startswith("#")]
    assert project["dependencies"] == listed
