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

from demo.graph import NEED_MORE_MODELS
from demo.graph import read_graph as api
from demo.pack import load_pack
from demo.stand_ins import CoreNodes
from tools.comfy_nodes import CORE
from tools.draw_workflows import files
from tools.node_catalogue import AUTOGROW, catalogue
from tools.workflow_builder import Workflow
from tools.workflows import SUBGRAPHS, WORKFLOWS

NAMES = tuple(WORKFLOWS)
CORE_TEMPLATE = "scail2_core_template"
NOTES = ("Note", "MarkdownNote")
# Workflows have these, but for two.
PLAIN = {"LoadScail2MLX", "Scail2T5Encode", "Scail2ClipEncode", "Scail2Sampler", "WanVaeTiledDecode"}
OTHERWISE = {
    "scail2_one_node": {"Scail2Animate"},
    CORE_TEMPLATE: {"LoadScail2MLX", "Scail2CoreSampler", "WanSCAILToVideo"},
}
# Nodes that no workflow needs.
BESIDES = {
    "Scail2Convert",
    "Scail2Doctor",
    "Scail2Settings",
    "Scail2FitReference",
    *("WanMLXLoader", "WanMLXLora", "WanMLXPrompt", "WanMLXSampler"),  # whose workflows are still to be drawn
}
# Widgets that only the page has: it does not send them, or sends an empty preview.
PAGE_ONLY = ("control_after_generate", "upload", "video-preview")


def ui(name):
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def object_info(tmp_path):
    """Describe the nodes of the workflows as a server's /object_info does; files count as present."""
    described = {}
    for cls in load_pack().NODES:
        info = cls.GET_NODE_INFO_V1()
        info = info if isinstance(info, dict) else asdict(info)
        described[cls.GET_SCHEMA().node_id] = info
        if "lora" in info["input"]["required"]:  # there are none here
            info["input"]["required"] |= described_inputs({"lora": ["COMBO", {"options": []}]})
    for class_type, info in CORE.items():
        described[class_type] = {
            **info,
            "name": class_type,
            "category": "core",
            "input": {group: described_inputs(inputs) for group, inputs in info["input"].items()},
            "input_order": {group: list(described_inputs(inputs)) for group, inputs in info["input"].items()},
            "output_is_list": [False] * len(info["output"]),
        }
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(described))
    return path


def described_inputs(inputs):
    """Lists of files and models hold what the workflows choose; a growing input is so many plain ones."""
    chosen = sorted(
        {
            value
            for name in NAMES
            for node in api(name).values()
            for value in node["inputs"].values()
            if isinstance(value, str)
        }
    )
    made = {}
    for key, (kind, options) in inputs.items():
        if kind == AUTOGROW:
            made |= {f"{key}.{options['template']['prefix']}{i}": [options["template"]["type"], {}] for i in range(2)}
        elif kind == "COMBO" and not options["options"]:
            made[key] = [chosen, {}]
        else:
            made[key] = [[options["default"]], {}] if kind == "COMFY_DYNAMICCOMBO_V3" else [kind, options]
    return made


def test_the_shipped_files_are_what_the_builder_makes():
    """After a change of a node: `python -m tools.draw_workflows`."""
    for path, text in files().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path} is older than its nodes"


@pytest.mark.parametrize("name", NAMES)
def test_every_link_goes_from_an_output_to_an_input(name):
    page = ui(name)
    nodes = {node["id"]: node for node in page["nodes"]}
    made, taken = {}, {}
    for node in nodes.values():
        taken |= {i["link"]: (node["id"], slot) for slot, i in enumerate(node["inputs"]) if i["link"] is not None}
        made |= {link: (node["id"], slot) for slot, o in enumerate(node["outputs"]) for link in o["links"] or ()}
    assert made.keys() == taken.keys() == {link[0] for link in page["links"]}
    for number, source, out, target, slot, kind in page["links"]:
        assert made[number] == (source, out)
        assert taken[number] == (target, slot)
        wanted = nodes[target]["inputs"][slot]["type"].split(",")
        assert nodes[source]["outputs"][out]["type"] == kind
        assert kind in wanted
        assert nodes[source]["order"] < nodes[target]["order"]


@pytest.mark.parametrize("name", NAMES)
def test_no_node_lies_on_another(name):
    title = 30
    boxes = [
        (*node["pos"], *node["size"], node["title"] if "title" in node else node["type"]) for node in ui(name)["nodes"]
    ]
    for i, (x, y, width, height, what) in enumerate(boxes):
        for x2, y2, width2, height2, other in boxes[i + 1 :]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 - title or y2 + height2 <= y - title
            assert apart, f"{what} and {other}"


@pytest.mark.parametrize("name", NAMES)
def test_every_node_lies_in_a_group(name):
    page = ui(name)
    frames = [group["bounding"] for group in page["groups"]]
    for node in page["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        around = [f for f in frames if f[0] <= x and f[1] <= y - 30 and x + width <= f[0] + f[2]]
        assert any(y + height <= f[1] + f[3] for f in around), node["type"]


def test_a_change_of_a_node_reaches_its_workflows():
    """A new input at the end of a schema stands at the end of the values, with its default."""
    types = catalogue()
    workflow = Workflow("any", types)
    sampler = workflow.add("Scail2Sampler", (0, 0), (300, 0))
    (node,) = workflow.page()["nodes"]
    widgets = [item.name for item in types["Scail2Sampler"].inputs if item.is_widget]
    assert list(node["widgets_values_named"]) == widgets
    assert node["size"][1] == sampler.type.height
    with pytest.raises(ValueError, match="no input \\['stepz'\\]"):
        workflow.add("Scail2Sampler", (0, 0), (300, 0), {"stepz": 3})
    with pytest.raises(KeyError, match="no output 'video'"):
        sampler["video"]


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_a_subgraph_is_whole(name):
    blueprint = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))
    (inside,) = blueprint["definitions"]["subgraphs"]
    (instance,) = blueprint["nodes"]
    assert instance["type"] == inside["id"]
    assert [(i["name"], i["type"]) for i in instance["inputs"]] == [(i["name"], i["type"]) for i in inside["inputs"]]
    assert [o["name"] for o in instance["outputs"]] == [o["name"] for o in inside["outputs"]]
    nodes = {node["id"]: node for node in inside["nodes"]}
    assert {"reference_image", "reference_mask", "driving_video", "driving_mask", "prompt", "seed"} <= {
        i["name"] for i in inside["inputs"]
    }
    for link in inside["links"]:
        if link["target_id"] > 0:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        if link["origin_id"] > 0:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
    for node, widget in instance["properties"]["proxyWidgets"]:
        assert widget in nodes[int(node)]["widgets_values_named"]
    sampler = next(node for node in nodes.values() if node["type"] == "Scail2Sampler")
    assert sampler["widgets_values_named"]["mode"] == name.removeprefix("SCAIL-2 ").lower()


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
    used = {node["type"] for node in ui(name)["nodes"]} - set(NOTES)
    assert used <= ours | CORE.keys()
    assert used >= OTHERWISE.get(name, PLAIN)


def test_every_node_of_ours_is_in_a_workflow():
    ours = {cls.GET_SCHEMA().node_id for cls in load_pack().NODES}
    used = {node["type"] for name in NAMES for node in ui(name)["nodes"]}
    assert used >= ours - BESIDES
    assert used >= CORE.keys()
    in_the_demo = {node["type"] for name in set(NAMES) - set(NEED_MORE_MODELS) for node in ui(name)["nodes"]}
    assert CoreNodes(Path(), Path()).by_class().keys() == CORE.keys() & in_the_demo


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_and_modes_fit(name):
    graph = api(name)
    values = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, str)]
    samples = [value.removeprefix("scail2_") for value in values if value.endswith((".png", ".mp4"))]
    assert samples
    assert all((ROOT / "assets" / sample).is_file() for sample in samples)
    replaces = name in ("scail2_replacement", CORE_TEMPLATE)
    inputs = [node["inputs"] for node in graph.values()]
    modes = {given["mode"] for given in inputs if "mode" in given}
    modes |= {
        "replacement" if given["replacement_mode"] else "animation" for given in inputs if "replacement_mode" in given
    }
    assert modes == {"replacement" if replaces else "animation"}
    masks = {sample for sample in samples if "_mask" in sample}
    assert {mask for mask in masks if "replacement" in mask} == (masks if replaces else set())


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_asks_for_no_download_where_the_small_model_does(name):
    """The page offers to download a node's `models` when they are missing, before anything can be tried."""
    from mlx_backend.weights.checkpoints.hub import FILES

    (loader,) = (node for node in ui(name)["nodes"] if node["type"] in ("LoadScail2MLX", "Scail2Animate"))
    snapshot = loader["widgets_values_named"]["snapshot"]
    offered = {model["name"]: model["url"] for model in loader["properties"].get("models", ())}
    if name != CORE_TEMPLATE:  # ComfyUI's encoders and VAE fit the published model only
        assert (snapshot, offered) == ("auto", {})
        return
    assert snapshot == "SceneWorks/scail2-mlx/q4"
    place = "https://huggingface.co/SceneWorks/scail2-mlx/resolve/ce88cfdb1008f395e9c820e525e6db7b6695f7b3/q4"
    assert offered == {file: f"{place}/{file}" for file in FILES}
    assert {model["directory"] for model in loader["properties"]["models"]} == {"scail2/scail2-mlx/q4"}


@pytest.mark.parametrize("name", NAMES)
def test_the_result_has_the_shape_of_the_samples(name):
    for node in api(name).values():
        if node["class_type"] in ("Scail2Sampler", "Scail2InputCheck", "WanSCAILToVideo"):
            assert node["inputs"]["width"] == node["inputs"]["height"] == 640


@pytest.mark.parametrize("name", NAMES)
def test_a_video_keeps_the_rate_and_the_sound_of_its_clip(name):
    graph = api(name)
    told = [node["inputs"]["driving_fps"] for node in graph.values() if node["class_type"] == "Scail2Sampler"]
    assert all(isinstance(fps, list) for fps in told)
    videos = [node["inputs"] for node in graph.values() if node["class_type"] == "CreateVideo"]
    assert len(videos) == (0 if name == "scail2_still_image" else 1)
    for video in videos:
        if name == "scail2_one_node":
            source, _ = video["fps"]
            video["fps"] = graph[source]["inputs"]["fps"]  # what goes in there comes out
        for what, slot in (("fps", 3), ("audio", 4)):
            source, out = video[what]
            if graph[source]["class_type"] == "Scail2ResampleFps":
                source, out = graph[source]["inputs"]["target_fps" if what == "fps" else "audio"]
            assert graph[source]["class_type"] == "Scail2LoadVideo"
            assert out == slot
            assert "mask" not in graph[source]["inputs"]["file"]


@pytest.mark.parametrize("name", NAMES)
def test_a_driving_clip_goes_to_the_sampler_undecoded(name):
    """As a VIDEO that our node has loaded; its mask too, unless a node paints it from pictures."""
    page = ui(name)
    types = {number: kind for number, *_, kind in page["links"]}
    taken = {"Scail2Sampler", "Scail2InputCheck", "Scail2Animate"}
    nodes = [node for node in page["nodes"] if node["type"] in taken]
    for node in nodes:
        linked = {item["name"]: types[item["link"]] for item in node["inputs"] if item.get("link") is not None}
        assert linked["driving_video"] == "VIDEO"
        painted = any(other["type"] == "Scail2ColoredMask" for other in page["nodes"])
        assert linked["driving_mask"] == ("IMAGE" if painted else "VIDEO")
    assert nodes or name == CORE_TEMPLATE
    assert any(node["type"] == "Scail2LoadVideo" for node in page["nodes"])


@pytest.mark.parametrize("name", NAMES)
def test_each_workflow_has_a_thumbnail(name):
    from PIL import Image

    with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 256
    assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size <= 40 * 1024


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
