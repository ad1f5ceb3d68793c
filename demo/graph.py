"""Runs a workflow in its API form: {id: {"class_type", "inputs"}}, inputs being values or [id of a node, output]."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

API = Path(__file__).parent / "api"
NEED_MORE_MODELS = ("scail2_sam3_masks", "scail2_core_template")
"""Workflows that need models beside SCAIL-2, and so do not run here."""

Graph = Mapping[str, Mapping[str, Any]]
Node = Callable[[dict[str, Any]], tuple]


def workflows() -> list[str]:
    """Return the names of the shipped workflows that run here."""
    return sorted({path.stem for path in API.glob("*.json")} - {*NEED_MORE_MODELS})


def read_graph(name: str) -> Graph:
    """Return a shipped workflow as the page would send it."""
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def is_link(value: Any) -> bool:
    """Whether an input is another node's output."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def run_graph(graph: Graph, nodes: Mapping[str, Node], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple]:
    """Execute every node once, in the order of their links, and return their outputs by id.

    `nodes` says by class how to execute one; `overrides` replaces inputs by class and name.
    Raises KeyError for a class that is unknown and ValueError for a graph that turns in a circle.
    """
    done: dict[str, tuple] = {}
    waiting = dict(graph)
    while waiting:
        ready = [
            name
            for name, node in waiting.items()
            if all(value[0] in done for value in node["inputs"].values() if is_link(value))
        ]
        if not ready:
            raise ValueError(f"The nodes {', '.join(waiting)} wait for each other.")
        for name in ready:
            node = waiting.pop(name)
            inputs = {
                key: done[value[0]][value[1]] if is_link(value) else value for key, value in node["inputs"].items()
            }
            done[name] = nodes[node["class_type"]](inputs | overrides.get(node["class_type"], {}))
    return done
