"""Loading: a snapshot folder, or a published one that is downloaded first, as handles."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.machine import chosen_memory
from ..mlx_backend.interface.published import published
from ..mlx_backend.interface.requests import LoraRequest
from ..mlx_backend.interface.small_model import SMALL_MODEL
from ..mlx_backend.interface.variants import PROCESSES, RESIDENCIES
from ..mlx_backend.members.scail2 import MEMBER
from ..mlx_backend.runtime.device import PRECISIONS, require_mlx
from ..mlx_backend.weights.checkpoints.snapshot import COMPONENTS, Snapshot, find_snapshots
from . import host, sockets
from .neighbour import neighbour

if TYPE_CHECKING:
    from ..mlx_backend.pipelines.store import ModelStore
    from ..mlx_backend.workers.pool import Pool

AUTO = "auto"  # what is installed, else SMALL
SMALL = "the small puppet model of this pack"
FROM_SNAPSHOT = "from the snapshot"
ONLY_FILES = "only the files below"
# The loader's input for each component, and the folders of ComfyUI that may hold its file.
FILE_INPUTS = {
    "dit": ("dit", ("diffusion_models", "unet_gguf")),
    "vae": ("vae", ("vae",)),
    "text_encoder": ("t5_encoder", ("text_encoders",)),
    "clip_vision": ("clip", ("clip_vision",)),
}
LOW_NOISE = "low_noise"  # the input of Load Wan for the second of two experts
INPUTS = FILE_INPUTS | {LOW_NOISE: (LOW_NOISE, FILE_INPUTS["dit"][1])}


class LoadScail2MLX(io.ComfyNode):
    """Four handles to a model's parts; nothing is loaded before it is used."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="LoadScail2MLX",
            display_name="Load SCAIL-2 (MLX)",
            category=sockets.CATEGORY,
            description="Chooses a SCAIL-2 snapshot. Its parts are loaded when they are used, and released after.",
            search_aliases=["scail", "scail2", "mlx loader", "wan"],
            inputs=[
                snapshot_input(ONLY_FILES),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="auto",
                    tooltip="auto: the published bf16 weights, with float32 where the model needs it. "
                    "float32: everything in float32, slower, for comparisons.",
                ),
                *(
                    io.Combo.Input(
                        name,
                        options=[FROM_SNAPSHOT, *host.model_files(folders)],
                        default=FROM_SNAPSHOT,
                        optional=True,
                        tooltip=f"A file in models/{folders[0]} instead of the snapshot's: any published layout, "
                        "bf16, fp16, fp8, int8 or GGUF.",
                        advanced=True,
                    )
                    for name, (_, folders) in FILE_INPUTS.items()
                ),
                io.Combo.Input(
                    "tokenizer",
                    options=[FROM_SNAPSHOT, *host.tokenizer_files()],
                    default=FROM_SNAPSHOT,
                    optional=True,
                    tooltip="A tokenizer.json or spiece.model of UMT5 in models/text_encoders or models/scail2 instead "
                    "of the snapshot's, or of the one in or beside the text encoder's file.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "residency",
                    options=list(RESIDENCIES),
                    default=RESIDENCIES[0],
                    optional=True,
                    tooltip="resident: the whole model in memory. streamed: its blocks are read from disk when they "
                    "are due, the next one while one computes; the same numbers in the memory of two blocks. "
                    "auto: resident where it fits.",
                    advanced=True,
                ),
                io.Float.Input(
                    "memory_gb",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=0.5,
                    optional=True,
                    tooltip="How many gigabytes a run may take. 0: three quarters of the machine's memory, or nine "
                    "tenths of what its GPU recommends if that is less.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "process",
                    options=list(PROCESSES),
                    default=PROCESSES[0],
                    optional=True,
                    tooltip="Where the networks run. own: in a process of their own, which ComfyUI outlives: when "
                    "Metal ends it, the run goes on in a new one from the last finished segment. shared: in ComfyUI's "
                    "process. auto: own where Metal computes.",
                    advanced=True,
                ),
            ],
            outputs=handle_outputs(),
        )

    @classmethod
    def validate_inputs(cls, snapshot: str | None, dit: str | None = FROM_SNAPSHOT) -> bool | str:
        """Accept what the list offers, and the path of any folder; files alone need the model's own."""
        if dit not in (None, FROM_SNAPSHOT) and host.model_path(FILE_INPUTS["dit"][1], dit) is None:
            return f"There is no file '{dit}' in models/{FILE_INPUTS['dit'][1][0]}: choose one from the list."
        if snapshot == ONLY_FILES and dit == FROM_SNAPSHOT:
            return f"With snapshot '{ONLY_FILES}' the model's own file is needed: choose it at dit."
        known = snapshot in (None, ONLY_FILES) or is_snapshot(snapshot)
        return known or f"There is no snapshot '{snapshot}' in the model folders: choose one from the list."

    @classmethod
    def fingerprint_inputs(
        cls,
        snapshot: str,
        precision: str,
        dit: str = FROM_SNAPSHOT,
        vae: str = FROM_SNAPSHOT,
        text_encoder: str = FROM_SNAPSHOT,
        clip_vision: str = FROM_SNAPSHOT,
        tokenizer: str = FROM_SNAPSHOT,
        residency: str = RESIDENCIES[0],
        memory_gb: float = 0.0,
        process: str = PROCESSES[0],
    ) -> tuple:
        """Change when one of the chosen files does."""
        parts = chosen_parts(tokenizer, dit=dit, vae=vae, text_encoder=text_encoder, clip_vision=clip_vision)
        folder = snapshot_folder(snapshot)
        paths = [*(sorted(folder.glob("*.*")) if folder else []), *parts.values()]
        return (snapshot, precision, residency, memory_gb, process, *map(host.file_state, paths))

    @classmethod
    def execute(
        cls,
        snapshot: str,
        precision: str,
        dit: str = FROM_SNAPSHOT,
        vae: str = FROM_SNAPSHOT,
        text_encoder: str = FROM_SNAPSHOT,
        clip_vision: str = FROM_SNAPSHOT,
        tokenizer: str = FROM_SNAPSHOT,
        residency: str = RESIDENCIES[0],
        memory_gb: float = 0.0,
        process: str = PROCESSES[0],
    ) -> io.NodeOutput:
        """Return (model, text encoder, CLIP vision, VAE) handles."""
        require_mlx()
        parts = chosen_parts(tokenizer, dit=dit, vae=vae, text_encoder=text_encoder, clip_vision=clip_vision)
        snapshot = chosen_snapshot(snapshot, has_files=bool(parts))
        folder = None if snapshot == ONLY_FILES else open_folder(snapshot)
        needed = ("dit",) if folder is None else COMPONENTS  # encoders and VAE may be ComfyUI's
        found = Snapshot.open(folder) if folder and not parts else Snapshot.assemble(folder, parts, needed)
        return handles(new_store(found, precision, residency, memory_gb, process))


def handles(store: ModelStore) -> io.NodeOutput:
    """Return what a loader gives: (model, text encoder, CLIP vision, VAE)."""
    from ..mlx_backend.pipelines.store import Models

    models = Models.of(store)
    return io.NodeOutput(models.dit, models.text_encoder, models.clip, models.vae)


def handle_outputs() -> list[io.Output]:
    """Return the sockets of a loader's handles."""
    return [
        sockets.Model.Output("model", display_name="model"),
        sockets.TextEncoder.Output("text_encoder", display_name="text_encoder"),
        sockets.ClipVision.Output("clip_vision", display_name="clip_vision"),
        sockets.Vae.Output("vae", display_name="vae"),
    ]


def snapshot_input(*others: str) -> io.Combo.Input:
    """Return the choice of a snapshot, with other choices behind the snapshots."""
    return io.Combo.Input(
        "snapshot",
        options=[AUTO, *MEMBER.hub_repositories, *snapshot_choices(), SMALL, *others],
        default=AUTO,
        tooltip="A folder under models/scail2, or a published snapshot, which is downloaded there when the node first "
        "runs (resumable): "
        + "; ".join(f"{name.rsplit('/', 1)[-1]}, {published(name).needs}" for name in MEMBER.hub_repositories)
        + ". auto: the first one that is installed; where none is, the small model that comes with this pack, which "
        "knows puppets of 96x96 pixels only, to try a workflow at once.",
    )


def is_snapshot(name: str) -> bool:
    """Whether a snapshot input may have this value: what its list offers, or the path of any folder."""
    return name in (AUTO, SMALL) or is_published(name) or snapshot_folder(name) is not None


def is_published(name: str) -> bool:
    """Whether it can be downloaded: a tier, or its repository, as older workflows have it."""
    return name in {*MEMBER.hub_repositories, *(published(tier).repository for tier in MEMBER.hub_repositories)}


def meant(name: str, *, has_files: bool = False) -> str:
    """Return what AUTO stands for now; other values as they are. Files chosen beside it never mix with SMALL."""
    if name != AUTO:
        return name
    return next(iter(snapshot_choices()), ONLY_FILES if has_files else SMALL)


def chosen_snapshot(name: str, *, has_files: bool = False) -> str:
    """Return what is `meant`, and tell the user where that is SMALL by itself."""
    chosen = meant(name, has_files=has_files)
    if name == AUTO and chosen == SMALL:
        host.HostListener().note(
            "No snapshot is installed, so the small puppet model of this pack is used, to try the workflow. For your "
            f"own pictures choose {MEMBER.hub_repositories[0]}, which is then downloaded."
        )
    return chosen


def new_store(
    found: Snapshot,
    precision: str = PRECISIONS[0],
    residency: str = RESIDENCIES[0],
    memory_gb: float = 0.0,
    process: str = PROCESSES[0],
) -> ModelStore:
    """Return a store of a snapshot that gives its memory back when ComfyUI asks; nothing is loaded yet."""
    from ..mlx_backend.pipelines.store import ModelStore
    from ..mlx_backend.workers.pool import wants_own_process

    memory = chosen_memory(memory_gb, "memory_gb")
    elsewhere = _pool() if wants_own_process(process) else None
    store = ModelStore(found, precision, residency, host.cache_folder(), memory, elsewhere)
    neighbour().add(store)
    return store


@cache
def _pool() -> Pool:
    """Return the one process that the stores of all loaders share: a machine has one GPU."""
    from ..mlx_backend.workers.pool import Pool

    return Pool()


def chosen_parts(tokenizer: str, /, **files: str) -> dict[str, Path]:
    """Return the tokenizer and the files chosen beside the snapshot, by component; `files` by their inputs.

    Raises RequestError for one that is gone.
    """
    return chosen_files(files) | chosen_tokenizer(tokenizer)


def chosen_files(files: dict[str, str]) -> dict[str, Path]:
    """Return the files chosen beside the snapshot, by component. Raises RequestError for one that is gone."""
    parts = {}
    for name, value in files.items():
        component, folders = INPUTS[name]
        if value != FROM_SNAPSHOT:
            path = host.model_path(folders, value)
            if path is None:
                raise RequestError(f"There is no file '{value}' in models/{folders[0]}: choose one from the list.")
            parts[component] = path
    return parts


def chosen_tokenizer(value: str) -> dict[str, Path]:
    """Return the tokenizer chosen beside the snapshot, if any, as a part. Raises RequestError for one that is gone."""
    if value == FROM_SNAPSHOT:
        return {}
    path = host.tokenizer_files().get(value, Path(value))
    if not path.is_file():
        raise RequestError(
            f"There is no tokenizer '{value}' in models/text_encoders or models/scail2: choose one from the list."
        )
    return {"tokenizer": path}


def open_folder(snapshot: str) -> Path:
    """Return a snapshot's folder, downloading it first if need be. Raises RequestError if there is none."""
    folder = snapshot_folder(snapshot)
    if folder is None and is_published(snapshot):
        from ..mlx_backend.weights.checkpoints.hub import download_snapshot

        with neighbour().at_work():
            folder = download_snapshot(snapshot, host.download_root(), host.HostListener())
    if folder is None:
        raise RequestError(f"There is no snapshot '{snapshot}' in {_roots()}: choose one from the list.")
    return folder


class Scail2LoraLoader(io.ComfyNode):
    """One LoRA more on the model; changing it loads nothing else again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2LoraLoader",
            display_name="SCAIL-2 LoRA (MLX)",
            category=sockets.CATEGORY,
            description="Puts a LoRA on the model, beside its weights: on dense and on packed ones alike. Nodes can be "
            "chained; changing a strength or removing a LoRA does not load the model again.",
            search_aliases=["scail", "lora", "lightx2v", "dpo"],
            inputs=[
                sockets.Model.Input("model", tooltip="From Load SCAIL-2, or another SCAIL-2 LoRA node."),
                io.Combo.Input("lora", options=host.model_files(("loras",)), tooltip="A file in models/loras."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly it acts; 0 leaves it out, negative values take away what it adds.",
                ),
                io.Boolean.Input(
                    "allow_unknown",
                    default=False,
                    tooltip="Use the file although many of its names fit nothing in this model.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Model.Output("model", display_name="model")],
        )

    @classmethod
    def validate_inputs(cls, lora: str) -> bool | str:
        """Accept what the list offers, and the path of any file."""
        return host.model_path(("loras",), lora) is not None or no_lora(lora)

    @classmethod
    def execute(cls, model, lora: str, strength: float, allow_unknown: bool) -> io.NodeOutput:
        """Return the model's handle with one LoRA more, which its header says is made for it; it is read when used."""
        path = lora_file(lora)
        if model.store.low_noise is not None:
            raise RequestError(
                "This model has two experts, and a LoRA is for one of them: use Wan LoRA, which has a role."
            )
        require_mlx()
        from ..mlx_backend.pipelines.store import check_loras

        request = LoraRequest(path, strength, allow_unknown)
        check_loras(replace(model, loras=(request,)))
        return io.NodeOutput(replace(model, loras=(*model.loras, request)))


def lora_file(name: str) -> Path:
    """Return the file of a LoRA. Raises RequestError for one that is gone."""
    path = host.model_path(("loras",), name)
    if path is None:
        raise RequestError(no_lora(name))
    return path


def no_lora(name: str) -> str:
    """Say that a LoRA is not there."""
    return f"There is no LoRA '{name}' in the model folders: choose one from the list."


def snapshot_choices() -> list[str]:
    """Return the names of the snapshots in the model folders: paths relative to their folder."""
    roots = host.model_roots()
    return list(dict.fromkeys(p.relative_to(r).as_posix() for r in roots for p in find_snapshots([r])))


def snapshot_folder(name: str) -> Path | None:
    """Return the folder of a snapshot by its name in the list or by its path; None if there is none."""
    name = meant(name)
    if name == SMALL:
        return SMALL_MODEL
    for candidate in (*(root / name for root in host.model_roots()), Path(name)):
        if candidate.is_dir():
            return candidate
    return None


def _roots() -> str:
    return ", ".join(str(root) for root in host.model_roots()) or "any model folder"
