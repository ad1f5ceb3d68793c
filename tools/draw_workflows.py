"""Writes the workflow files: `python -m tools.draw_workflows`, whenever a node has got a new input.

UI forms go to workflows/, what the page would send to demo/api/, and subgraphs for the node library to subgraphs/.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mlx_backend.runtime.device import require_mlx

require_mlx()  # before torch: its BLAS is not the one that MLX should find

from demo.pack import ROOT  # noqa: E402
from tools.node_catalogue import catalogue  # noqa: E402
from tools.workflows import blueprints, built, built_subgraphs  # noqa: E402


def files() -> dict[str, str]:
    """Return the text of every file by its path within the repository."""
    types = catalogue()
    made: dict[str, Any] = {}
    for workflow in built(types):
        made[f"workflows/{workflow.name}.json"] = workflow.page()
        made[f"demo/api/{workflow.name}.json"] = workflow.prompt()
    for workflow, description in built_subgraphs(types):
        content = workflow.blueprint(description, blueprints.CATEGORY, blueprints.ALIASES)
        made[f"subgraphs/{workflow.name}.json"] = content
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in made.items()}


def main(root: Path = ROOT) -> None:
    """Write the files that differ from what lies there."""
    for path, text in files().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
