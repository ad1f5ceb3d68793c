"""The report of a run as a file beside its video."""

from __future__ import annotations

import itertools
import json
from typing import Any

from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from . import host, sockets


class Scail2Report(io.ComfyNode):
    """A report in, the same report on disk and in words under the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2Report",
            display_name="SCAIL-2 Report (MLX)",
            category=sockets.CATEGORY,
            description="Writes what a result was made from (settings, seed, prompts, model, LoRAs, versions) and what "
            "it cost (seconds and peak memory of each phase) as a JSON file beside the video, so that it can be "
            "repeated.",
            search_aliases=["scail", "metadata", "statistics", "seconds", "memory", "settings"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "report",
                    force_input=True,
                    tooltip="The report of SCAIL-2 Sampler or SCAIL-2 Animate.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/scail2",
                    tooltip="As in Save Video: the same prefix puts the report into the same folder, under the number "
                    "that the video will have. Nothing is overwritten.",
                ),
            ],
            outputs=[io.String.Output("report", display_name="report")],
        )

    @classmethod
    def execute(cls, report: str, filename_prefix: str) -> io.NodeOutput:
        """Write the report, show it and return it."""
        from ..mlx_backend.pipelines.kept_files import keep_new_file

        (width, height), words = _read(report)
        folder, name, number = host.output_place(filename_prefix, width, height)
        # ComfyUI counts name_00001... as taken, whatever follows: written so, the report would take the video's number.
        paths = (folder / f"{name}_report_{n:05}.json" for n in itertools.count(number))
        path = keep_new_file(paths, lambda file: file.write(report.encode()))
        host.HostListener().note("\n".join((f"Written to {path}.", *words)))
        return io.NodeOutput(report, ui={"text": [report]})


def _read(report: str) -> tuple[tuple[int, int], list[str]]:
    """Return the size in pixels of a report's clip, and the report in words. Raises RequestError for another text."""
    try:
        read = json.loads(report)
        return (read["run"]["width"], read["run"]["height"]), _in_words(read)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(
            f"The text '{report[:40]}' is no report of a SCAIL-2 run: connect the report output of SCAIL-2 Sampler or "
            "SCAIL-2 Animate."
        ) from error


def _in_words(report: dict[str, Any]) -> list[str]:
    run, settings = report["run"], report["settings"]
    seconds = sum(phase["seconds"] for phase in report["phases"])
    return [
        f"{run['frames']} frames of {run['width']}x{run['height']} ({run['mode']}) in {run['segments']} "
        f"segment{'s' * (run['segments'] != 1)}: {settings['solver']}, {settings['steps']} steps, "
        f"cfg {settings['cfg']:g}, seed {run['seed']}.",
        *(f"{p['phase']}: {p['seconds']:.1f} s, at most {p['peak_bytes'] / 1e9:.2f} GB" for p in report["phases"]),
        f"{seconds:.1f} s in all.",
        *(f"Warning: {message}" for message in report["warnings"]),
    ]
