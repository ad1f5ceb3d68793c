"""`python -m demo`: a shipped workflow on the sample picture and video, headless, through the pack's own nodes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()  # before torch: its BLAS is not the one that MLX should find

import torch  # noqa: E402

from demo.graph import run_graph  # noqa: E402
from demo.pack import ROOT, load_pack, pack_nodes  # noqa: E402
from demo.stand_ins import CoreNodes  # noqa: E402
from demo.workflows import NEED_MORE_MODELS  # noqa: E402
from demo.workflows import WORKFLOWS as BUILDERS  # noqa: E402
from mlx_backend.media.contact_sheet import contact_sheet  # noqa: E402
from mlx_backend.media.write import write_clip  # noqa: E402
from mlx_backend.weights.random_snapshot import write_random_snapshot  # noqa: E402

WORKFLOWS = tuple(name for name in BUILDERS if name not in NEED_MORE_MODELS)
SEED = 7
PROMPT = "A fox in a teal coat dances on a beach at dusk."  # the random tokenizer spells, so it is short
SMALL = {"width": 256, "height": 160, "steps": 4}  # what two CPU cores do in seconds


def main() -> None:
    """Run the workflow, save its video and a contact sheet, and say where they are."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--workflow", choices=WORKFLOWS, default=WORKFLOWS[0])
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a real snapshot; without it a tiny random one is made"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "output", metavar="DIR")
    chosen = parser.parse_args()

    folder = chosen.model or chosen.output / "random-snapshot"
    snapshot = {"snapshot": str(folder.resolve())}
    overrides: dict[str, dict] = {"LoadScail2MLX": snapshot, "Scail2Animate": snapshot}
    if not chosen.model:
        sys.stdout.write(
            "The demo's model is tiny and random: it shows that everything works, and its picture is abstract.\n"
            "Real weights are one option away: python -m demo --model DIR (see README.md).\n"
        )
        chosen.output.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            write_random_snapshot(folder, SEED)
        overrides |= {"Scail2Sampler": SMALL, "Scail2InputCheck": SMALL, "Scail2T5Encode": {"prompt": PROMPT}}
        overrides["Scail2Animate"] = snapshot | {"prompt": PROMPT, "preset": "fast", "max_frames": 5}

    graph = json.loads((ROOT / "demo" / "api" / f"{chosen.workflow}.json").read_text(encoding="utf-8"))
    nodes = CoreNodes(ROOT / "assets", chosen.output).by_class() | pack_nodes(load_pack())
    outputs = run_graph(graph, nodes, overrides)

    def outputs_of(class_type: str, title: str = "") -> tuple:
        name = next(
            n for n, node in graph.items() if node["class_type"] == class_type and title in node["_meta"]["title"]
        )
        return outputs[name]

    kinds = {node["class_type"] for node in graph.values()}
    saved = outputs_of("SaveVideo" if "SaveVideo" in kinds else "SaveImage")[0]
    rows = [
        ("reference", outputs_of("LoadImage", "Reference picture")[0]),
        ("driving video", outputs_of("GetVideoComponents", "Driving video")[0]),
        ("result", outputs_of("WanVaeTiledDecode" if "WanVaeTiledDecode" in kinds else "Scail2Animate")[0]),
    ]
    sheet = chosen.output / f"{chosen.workflow}.png"
    picture = contact_sheet([(label, images.numpy()) for label, images in rows])
    write_clip(sheet, torch.from_numpy(picture)[None].numpy() / 255.0, fps=1)
    sys.stdout.write(f"result:        {saved}\ncontact sheet: {sheet}\n")


if __name__ == "__main__":
    main()
