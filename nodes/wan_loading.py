"""Loading a model of the Wan 2.1 and 2.2 family, and its LoRAs."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..mlx_backend.interface.requests import LoraRequest
from ..mlx_backend.interface.variants import PROCESSES, RESIDENCIES
from ..mlx_backend.members import kinds
from ..mlx_backend.runtime.device import PRECISIONS, require_mlx
from ..mlx_backend.weights.checkpoints.experts import HIGH, LOW, expert_of
from ..mlx_backend.weights.checkpoints.snapshot import Snapshot
from . import host, sockets
from .loaders import (
    FROM_SNAPSHOT,
    INPUTS,
    LOW_NOISE,
    ONLY_FILES,
    LoadScail2MLX,
    Scail2LoraLoader,
    chosen_parts,
    handle_outputs,
    handles,
    lora_file,
    new_store,
    snapshot_choices,
    snapshot_folder,
)

TOLD = "as files and names tell"
BOTH = "both"
BY_NAME = "by the file's name"


class WanMLXLoader(io.ComfyNode):
    """Handles to a model's parts, one or two transformers among them; nothing is loaded before it is used."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        shared = ("precision", "vae", "text_encoder", "clip_vision", "tokenizer", "residency", "memory_gb", "process")
        precision, vae, text, clip, tokenizer, *rest = sockets.inputs_of(LoadScail2MLX, *shared)
        return io.Schema(
            node_id="WanMLXLoader",
            display_name="Load Wan (MLX)",
            category=sockets.CATEGORY,
            description="Chooses a Wan 2.1 or 2.2 model: text, first frame, first and last frame; 1.3B, 14B, two "
            "experts of 14B, 5B. Its parts are loaded when they are used, and released after.",
            search_aliases=["wan", "wan2.1", "wan2.2", "t2v", "i2v", "ti2v", "a14b", "text to video"],
            inputs=[
                io.Combo.Input(
                    "model_folder",
                    options=[*snapshot_choices(), ONLY_FILES],
                    tooltip="A folder under models/scail2 with a whole model: as published, of diffusers, or "
                    "converted for MLX. Or only the files below.",
                ),
                precision,
                _transformer("dit", "The transformer instead of the folder's; of two experts the high-noise one."),
                _transformer(LOW_NOISE, "The low-noise expert, where there are two."),
                *(vae, text, clip, tokenizer),
                io.Combo.Input(
                    "kind",
                    options=[TOLD, *kinds()],
                    default=TOLD,
                    optional=True,
                    tooltip="Which model the files are, where neither tensors nor names tell it.",
                    advanced=True,
                ),
                *rest,
            ],
            outputs=handle_outputs(),
        )

    @classmethod
    def validate_inputs(cls, model_folder: str) -> bool | str:
        """Accept what the list offers, and the path of any folder."""
        known = model_folder == ONLY_FILES or snapshot_folder(model_folder) is not None
        return known or f"There is no folder '{model_folder}' in models/scail2: choose one from the list."

    @classmethod
    def execute(
        cls,
        model_folder: str,
        precision: str = PRECISIONS[0],
        dit: str = FROM_SNAPSHOT,
        low_noise: str = FROM_SNAPSHOT,
        vae: str = FROM_SNAPSHOT,
        text_encoder: str = FROM_SNAPSHOT,
        clip_vision: str = FROM_SNAPSHOT,
        tokenizer: str = FROM_SNAPSHOT,
        kind: str = TOLD,
        residency: str = RESIDENCIES[0],
        memory_gb: float = 0.0,
        process: str = PROCESSES[0],
    ) -> io.NodeOutput:
        """Return (model, text encoder, CLIP vision, VAE) handles."""
        require_mlx()
        transformers = {"dit": dit, LOW_NOISE: low_noise}
        parts = chosen_parts(tokenizer, vae=vae, text_encoder=text_encoder, clip_vision=clip_vision, **transformers)
        folder = None if model_folder == ONLY_FILES else snapshot_folder(model_folder)
        said = None if kind == TOLD else kind
        if folder is not None and not parts and said is None:
            found = Snapshot.open(folder)
        else:
            found = Snapshot.assemble(folder, parts, ("dit",) if folder is None else None, said)
        return handles(new_store(found, precision, residency, memory_gb, process))


class WanMLXLora(io.ComfyNode):
    """One LoRA more on the model, or on one of its experts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        lora, strength, allow_unknown = sockets.inputs_of(Scail2LoraLoader, "lora", "strength", "allow_unknown")
        return io.Schema(
            node_id="WanMLXLora",
            display_name="Wan LoRA (MLX)",
            category=sockets.CATEGORY,
            description="Puts a LoRA on a Wan model; of two experts on the one that the role names. Nodes can be "
            "chained; changing a strength or removing a LoRA does not load the model again.",
            search_aliases=["wan", "lora", "lightning", "lightx2v", "high noise", "low noise"],
            inputs=[
                sockets.Model.Input("model", tooltip="From Load Wan, or another Wan LoRA node."),
                *(lora, strength),
                io.Combo.Input(
                    "role",
                    options=[BY_NAME, HIGH, LOW, BOTH],
                    default=BY_NAME,
                    tooltip="Which of two experts it is for. by the file's name: where that says high or low. Without "
                    "effect on a model that is one.",
                ),
                allow_unknown,
            ],
            outputs=[sockets.Model.Output("model", display_name="model")],
        )

    @classmethod
    def execute(cls, model, lora: str, strength: float, role: str, allow_unknown: bool) -> io.NodeOutput:
        """Return the model's handle with one LoRA more; the file is read when the model is used."""
        path = lora_file(lora)
        request = LoraRequest(path, strength, allow_unknown)
        if model.store.low_noise is None:
            which = HIGH  # the only one
        else:
            which = expert_of(path, "choose the role") if role == BY_NAME else role
        loras, low = model.loras, model.low_loras
        if which in (HIGH, BOTH):
            loras = (*loras, request)
        if which in (LOW, BOTH):
            low = (*low, request)
        return io.NodeOutput(replace(model, loras=loras, low_loras=low))


def _transformer(name: str, tooltip: str) -> io.Combo.Input:
    options = [FROM_SNAPSHOT, *host.model_files(INPUTS[name][1])]
    return io.Combo.Input(name, options=options, default=FROM_SNAPSHOT, optional=True, tooltip=tooltip)
