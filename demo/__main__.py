"""`python -m demo`: shipped workflows on the sample pictures and videos, headless, through the pack's own nodes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mlx_backend.runtime.device import require_mlx

require_mlx()  # before torch: its BLAS is not the one that MLX should find

import numpy as np  # noqa: E402

from demo.graph import Graph, read_graph, run_graph, workflows  # noqa: E402
from demo.pack import ROOT, load_pack, pack_nodes  # noqa: E402
from demo.stand_ins import CoreNodes  # noqa: E402
from mlx_backend.interface.small_model import ASSETS, SMALL_SETTINGS  # noqa: E402
from mlx_backend.media.contact_sheet import contact_sheet, side_by_side  # noqa: E402
from mlx_backend.media.resize import PHOTO, fit  # noqa: E402
from mlx_backend.media.write import write_video  # noqa: E402

SHOWN = ("scail2_animation", "scail2_replacement", "scail2_two_people")
FPS = 16
MOMENTS = 3  # of each clip in the overview
QUICK = SMALL_SETTINGS  # the workflows have the published model's


def main() -> None:
    """Run the workflows, save their videos, each beside its inputs too, and contact sheets, and say where they are."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--workflow", choices=workflows(), help="(default: animation, replacement and two people)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="another snapshot than the small one of the pack")
    parser.add_argument("--output", type=Path, default=ROOT / "output", metavar="DIR")
    chosen = parser.parse_args()

    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.model:
        snapshot = {"snapshot": str(chosen.model.resolve())}
        overrides: dict[str, dict] = {"LoadScail2MLX": snapshot, "Scail2Animate": snapshot}
    else:
        overrides = {"Scail2Sampler": QUICK, "Scail2InputCheck": {"steps": QUICK["steps"]}}
        sys.stdout.write(
            "The model is the small one that comes with the pack (assets/puppets): it knows nothing but puppets of "
            "96x96 pixels.\nReal weights are one option away: python -m demo --model DIR (see README.md).\n"
        )
    nodes = CoreNodes(ASSETS, chosen.output).by_class() | pack_nodes(load_pack())
    rows = []
    for name in (chosen.workflow,) if chosen.workflow else SHOWN:
        graph = read_graph(name)
        outputs = run_graph(graph, nodes, overrides)
        clips = shown(graph, outputs)
        sheet, beside = chosen.output / f"{name}.png", chosen.output / f"{name}_side_by_side.mp4"
        write_video(sheet, contact_sheet(clips)[None] / 255.0, FPS)
        write_video(beside, side_by_side(clips) / 255.0, FPS)
        kinds = {node["class_type"] for node in graph.values()}
        saved = outputs[_node(graph, "SaveVideo" if "SaveVideo" in kinds else "SaveImage")][0]
        sys.stdout.write(f"{name}:\n  result        {saved}\n  side by side  {beside}\n  contact sheet {sheet}\n")
        sys.stdout.flush()
        rows.append((f"{name}: reference, driving video, result", in_a_row(clips)))
    overview = chosen.output / "demo.png"
    write_video(overview, contact_sheet(rows, 1 + 2 * MOMENTS)[None] / 255.0, FPS)
    sys.stdout.write(f"all of them in one picture: {overview}\n")


def in_a_row(clips: list[tuple[str, np.ndarray]], side: int = 160) -> np.ndarray:
    """Return the first clip's first frame and MOMENTS of each other one, as one clip [F, side, side, 3] in 0..1."""
    (_, still), *moving = clips
    chosen = [still[:1], *(clip[np.linspace(0, len(clip) - 1, MOMENTS).astype(int)] for _, clip in moving)]
    return np.concatenate([fit(frames, side, side, PHOTO).clip(0, 1) for frames in chosen])


def shown(graph: Graph, outputs: dict[str, tuple]) -> list[tuple[str, np.ndarray]]:
    """Return what goes in and what came out, with labels: clips [F, H, W, 3] in 0..1."""
    kinds = {node["class_type"] for node in graph.values()}
    result = _node(graph, "WanVaeTiledDecode" if "WanVaeTiledDecode" in kinds else "Scail2Animate")
    clips = {
        "reference": outputs[_node(graph, "LoadImage", "Reference picture")][0],
        "driving video": outputs[_node(graph, "Scail2LoadVideo", "Driving video")][0],
        "result": outputs[result][0],
    }
    return [(label, images.numpy()) for label, images in clips.items()]


def _node(graph: Graph, class_type: str, title: str = "") -> str:
    def fits(node: Any) -> bool:
        return node["class_type"] == class_type and title in node["_meta"]["title"]

    return next(name for name, node in graph.items() if fits(node))


if __name__ == "__main__":
    main()
