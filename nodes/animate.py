"""The whole way in one node, for those who want one: the same functions as the nodes that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.presets import ORIENTATIONS, PRESETS, check_distilled, find_preset, size_of
from ..mlx_backend.interface.requests import LoraRequest
from ..mlx_backend.interface.settings import sampling_of, scene_of
from ..mlx_backend.interface.variants import PROCESSES
from ..mlx_backend.media.footage import seen
from ..mlx_backend.media.timing import check_same_length, resampling
from ..mlx_backend.runtime.device import PRECISIONS, require_mlx
from ..mlx_backend.weights.checkpoints.snapshot import Snapshot
from . import host, sockets
from .conditioning import Scail2T5Encode
from .loaders import SMALL, LoadScail2MLX, chosen_snapshot, is_snapshot, meant, new_store, open_folder, snapshot_input
from .neighbour import neighbour
from .presets import Scail2Settings, preset_loras, published_loras
from .sampling import Scail2Sampler
from .settings import DEFAULTS, widget
from .tensors import to_clip, to_image, to_numpy

AS_REFERENCE = "as the reference"


class Scail2Animate(io.ComfyNode):
    """Pictures, a prompt and a preset in, frames at the driving clip's rate out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2Animate",
            display_name="SCAIL-2 Animate (MLX)",
            category=sockets.CATEGORY,
            description="SCAIL-2 from pictures to frames in one node: loads, encodes, samples with a preset, decodes, "
            "and brings the result back to the driving video's frame rate. The single nodes offer every setting.",
            search_aliases=[
                *("scail", "scail2", "animate", "wan animate", "character replacement", "replace person"),
                *("motion transfer", "reference video", "pose", "dance", "long video", "all in one"),
            ],
            inputs=_inputs(),
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Float.Output("fps", display_name="fps"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, snapshot: str | None, preset: str | None, use_loras: bool | None = True) -> bool | str:
        """Accept what the list offers, the path of any folder, and presets whose LoRAs are there."""
        if snapshot is not None and not is_snapshot(snapshot):
            return f"There is no snapshot '{snapshot}' in the model folders: choose one from the list."
        if None not in (snapshot, preset) and use_loras:
            try:
                _check_loras(snapshot, preset, published_loras(find_preset(preset)))
            except RequestError as error:
                return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, snapshot: str | None, preset: str | None, use_loras: bool = True, **_rest: Any
    ) -> tuple:
        """Change when a file of the snapshot or a LoRA of the preset does; ComfyUI itself compares `_rest`, the inputs.

        It passes all of them, None for those that are linked.
        """
        chosen = PRESETS.get(preset) if use_loras else None
        loras = [] if chosen is None else [lora.path for lora in published_loras(chosen).values()]
        files = LoadScail2MLX.fingerprint_inputs(snapshot, PRECISIONS[0]) if snapshot else ()
        return (*files, *map(host.file_state, loras))

    @classmethod
    def execute(
        cls,
        snapshot: str,
        reference_image: torch.Tensor,
        driving_video: torch.Tensor,
        prompt: str,
        negative_prompt: str,
        mode: str,
        preset: str,
        size: str,
        orientation: str,
        seed: int,
        fps: float,
        max_frames: int,
        reference_mask: torch.Tensor | None = None,
        driving_mask: torch.Tensor | None = None,
        use_loras: bool = True,
        process: str = PROCESSES[0],
    ) -> io.NodeOutput:
        """Return the frames, as many as the driving video has, their rate, and the report as JSON."""
        (driving, own), (mask, _) = to_clip(driving_video), to_clip(driving_mask)
        fps = own or fps
        if mask is not None:
            check_same_length("driving mask", len(mask), len(driving))
        used = slice(0, max_frames or None)
        there = resampling(len(driving[used]), fps, DEFAULTS.driving_fps)
        chosen, follows = find_preset(preset), orientation == AS_REFERENCE
        width, height = size_of(size, ORIENTATIONS[0] if follows else orientation)
        pictures = {
            "references": to_numpy(reference_image),
            "driving": seen(driving[used], there),
            "reference_masks": to_numpy(reference_mask),
            "driving_mask": None if mask is None else seen(mask[used], there),
        }
        given = {"mode": mode, "width": width, "height": height, "follow_orientation": follows, "seed": seed}
        given |= chosen.values(width, height)
        scene, settings = scene_of(given, pictures, DEFAULTS), sampling_of(given, DEFAULTS)
        require_mlx()
        from ..mlx_backend.pipelines.generate import generate
        from ..mlx_backend.pipelines.pictures import prepare
        from ..mlx_backend.pipelines.recording import Recording, report_run
        from ..mlx_backend.pipelines.run import Session
        from ..mlx_backend.pipelines.store import Models
        from ..mlx_backend.pipelines.text import Prompts

        recording = Recording(host.HostListener())
        if not there.is_identity:
            recording.note(str(there))
        if use_loras:
            _check_loras(snapshot, preset, published_loras(chosen))
        loras = preset_loras(chosen, recording) if use_loras else ()
        store = new_store(Snapshot.open(open_folder(chosen_snapshot(snapshot))), process=process)
        models, prompts = Models.of(store, loras), Prompts(prompt, negative_prompt)
        with neighbour().at_work():
            host.free_torch_memory()
            try:
                session = Session(listener=recording, kept=host.resume_folder())
                run = prepare(models, prompts, scene, settings, session)
                frames = generate(run, None, session)
                report = report_run(run, recording)
            finally:
                store.release()
        back = resampling(len(frames), DEFAULTS.driving_fps, fps, len(driving[used]))
        return io.NodeOutput(to_image(seen(frames, back)), float(there.source), str(report))


def _check_loras(snapshot: str, preset: str, there: Mapping[str, LoraRequest]) -> None:
    """Raise RequestError for a preset without the LoRA that it cannot do without; the small model has no use for it."""
    if meant(snapshot) != SMALL:
        check_distilled(
            preset, there, "put it in models/loras (or turn use_loras off for a model that has it built in)"
        )


def _inputs() -> list[io.Input]:
    reference, mode, seed, *masks = sockets.inputs_of(
        Scail2Sampler, "reference_image", "mode", "seed", "reference_mask", "driving_mask"
    )
    return [
        snapshot_input(),
        reference,
        io.MultiType.Input(
            "driving_video",
            types=[io.Image, io.Video],
            tooltip="The motion, as the frames of a clip at any rate; or a VIDEO, whose own rate counts, and of which "
            "only what the run needs is decoded. One frame makes a still picture.",
        ),
        *sockets.inputs_of(Scail2T5Encode, "prompt", "negative_prompt"),
        mode,
        *sockets.inputs_of(Scail2Settings, "preset", "size"),
        io.Combo.Input(
            "orientation",
            options=[AS_REFERENCE, *ORIENTATIONS],
            default=AS_REFERENCE,
            tooltip="Whether the video is wide or upright: as the reference picture, or as chosen here.",
        ),
        seed,
        widget(
            "driving_fps",
            name="fps",
            default=DEFAULTS.driving_fps,
            step=0.001,
            optional=False,
            advanced=False,
            tooltip="Frames per second of the driving video: connect the fps of Get Video Components. The model works "
            "at 16; the result comes out at this rate again, with as many frames as went in.",
        ),
        widget(
            "max_frames",
            tooltip="Most frames of the driving video to use, counted at its own rate; 0 takes all.",
        ),
        *masks,
        io.Boolean.Input(
            "use_loras",
            default=True,
            optional=True,
            tooltip="Use the LoRAs that the preset was made for, where they lie in models/loras under their published "
            "names. The node says which were found.",
            advanced=True,
        ),
        *sockets.inputs_of(LoadScail2MLX, "process"),
    ]
