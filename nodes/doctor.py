"""Looking at the machine before trusting it with hours of work."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .loaders import snapshot_choices, snapshot_folder

NO_FOLDER = "do not measure the disk"


class Scail2Doctor(io.ComfyNode):
    """A report on this machine, shown below the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2Doctor",
            display_name="SCAIL-2 Doctor (MLX)",
            category=sockets.CATEGORY,
            description="Compares MLX's operations with float32 references at the row counts of real runs, and says "
            "in words whether this machine is safe, how fast it is and what to expect. Needs no model.",
            search_aliases=["scail", "diagnose", "check", "benchmark"],
            is_output_node=True,
            not_idempotent=True,
            inputs=[
                io.Combo.Input(
                    "snapshot",
                    options=[NO_FOLDER, *snapshot_choices()],
                    default=NO_FOLDER,
                    tooltip="A folder under models/scail2, to see whether its disk is fast enough to stream from.",
                ),
            ],
            outputs=[io.String.Output("report", display_name="report")],
        )

    @classmethod
    def validate_inputs(cls, snapshot: str) -> bool | str:
        """Accept what the list offers, and the path of any folder."""
        known = snapshot == NO_FOLDER or snapshot_folder(snapshot) is not None
        return known or f"There is no snapshot '{snapshot}' in the model folders: choose one from the list."

    @classmethod
    def execute(cls, snapshot: str) -> io.NodeOutput:
        """Return the report, and show it."""
        require_mlx()
        from ..mlx_backend.diagnostics.doctor import examine

        folder: Path | None = None if snapshot == NO_FOLDER else snapshot_folder(snapshot)
        host.free_torch_memory()
        listener = host.HostListener()
        try:
            report = examine(folder, listener.check_cancelled)
        except RequestError as error:  # a folder of links or of very small files: the rest can be examined
            listener.warn(str(error))
            report = examine(None, listener.check_cancelled)
        for check in report.checks:
            if check.verdict == "fault":
                listener.warn(str(check))
        text = str(report)
        listener.note(text)  # the page shows a node's own text, not what is in ui
        return io.NodeOutput(text, ui={"text": [text]})
