"""Converting: a model that is there already, in any layout and format, to a snapshot of its own."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..mlx_backend.interface.conversion import BITS, DTYPES, GROUP_SIZES, ConvertOptions
from ..mlx_backend.interface.errors import BackendError, RequestError
from ..mlx_backend.members.scail2 import MEMBER
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .loaders import FILE_INPUTS, is_published, open_folder, snapshot_choices, snapshot_folder
from .neighbour import neighbour

DENSE, MIXED = "none", "mixed"
MAX_NAME = 100  # characters; file systems allow 255 bytes, and the hidden folder beside it has a longer name
FORBIDDEN = '/\\:*?"<>|'  # what separates folders on some system, or what some system's names lack


class Scail2Convert(io.ComfyNode):
    """Writes a snapshot under models/scail2, dense or packed; the source stays as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        sources = [*snapshot_choices(), *file_choices(), *MEMBER.hub_repositories]
        bits = [DENSE, *map(str, BITS)]
        return io.Schema(
            node_id="Scail2Convert",
            display_name="Convert SCAIL-2 (MLX)",
            category=sockets.CATEGORY,
            description="Writes a model that you have, in any layout, as a snapshot under models/scail2: dense, or "
            "packed in 4, 5, 6, 8 or mixed bits. Queue it alone; the source stays as it is.",
            search_aliases=["scail", "convert", "quantize", "quantise", "pack", "4 bit", "8 bit"],
            inputs=[
                io.Combo.Input(
                    "source",
                    options=sources,
                    default=sources[0],
                    tooltip="A folder under models/scail2, the file of one part in ComfyUI's own folders, or a "
                    "published snapshot, which is downloaded first. A single file gives a folder with that part alone.",
                ),
                io.String.Input(
                    "name",
                    default="scail2-q4",
                    tooltip="The folder to make under models/scail2. It must not exist: nothing is overwritten.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="bfloat16",
                    tooltip="Of what stays dense in the DiT and the text encoder. VAE and CLIP are float32.",
                ),
                io.Combo.Input(
                    "bits",
                    options=[*bits, MIXED],
                    default="4",
                    tooltip="Of the DiT's block linears. none: dense. mixed: 4 or 8 for each layer by its error, at "
                    "about the size of 4.",
                ),
                io.Combo.Input(
                    "group_size",
                    options=[str(size) for size in GROUP_SIZES],
                    default="64",
                    tooltip="Weights that share a scale: fewer are more exact and larger.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "text_encoder_bits",
                    options=bits,
                    default=DENSE,
                    tooltip="Of the text encoder's block linears; 8 saves about 4.5 GB. none: dense.",
                    advanced=True,
                ),
            ],
            outputs=[io.String.Output("folder", display_name="folder")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, source: str | None, name: str | None) -> bool | str:
        """Accept what the list offers, and the path of any folder or file, and the name of a new folder.

        What comes from another node is None here.
        """
        try:
            if name is not None:
                new_folder(name)
        except BackendError as error:
            return str(error)
        known = source is None or is_published(source) or source_path(source) is not None
        return known or f"There is no model '{source}' in the model folders: choose one from the list."

    @classmethod
    def fingerprint_inputs(cls, **_: str) -> float:
        """Never equal to the last: a folder that was deleted is made again."""
        return float("nan")

    @classmethod
    def execute(
        cls, source: str, name: str, dtype: str, bits: str, group_size: str, text_encoder_bits: str
    ) -> io.NodeOutput:
        """Write the snapshot, and return the name of its folder."""
        destination = new_folder(name)
        options = ConvertOptions(
            dtype=dtype,
            bits=int(bits) if bits not in (DENSE, MIXED) else None,
            group_size=int(group_size),
            mixed=bits == MIXED,
            text_encoder_bits=int(text_encoder_bits) if text_encoder_bits != DENSE else None,
        )
        require_mlx()
        from ..mlx_backend.weights.checkpoints.convert import check_destination, convert, open_source

        path = source_path(source) or open_folder(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        check_destination(destination, path)
        with neighbour().at_work():
            convert(open_source(path), destination, options, host.HostListener())
        size = sum(file.stat().st_size for file in destination.iterdir())
        told = f"{destination}: {size / 1e9:.2f} GB"
        host.HostListener().note(told)  # the page shows a node's own text, not what is in ui
        return io.NodeOutput(name, ui={"text": (told,)})


def new_folder(name: str) -> Path:
    """Return where a folder of this name is made, always directly in models/scail2. Raises RequestError."""
    wrong = [letter for letter in name if letter in FORBIDDEN or not letter.isprintable()]
    if wrong or name.startswith(".") or name != name.strip() or not 1 <= len(name) <= MAX_NAME:
        raise RequestError(
            f"'{name[:MAX_NAME]}' cannot be the name of the new folder, which is made directly in models/scail2: 1 to "
            f"{MAX_NAME} letters, digits, hyphens or the like, no slash or colon, no dot in front, no space at an end."
        )
    folder = host.download_root() / name
    if folder.is_symlink() or folder.exists():
        raise RequestError(f"{folder} exists already, and nothing is overwritten: choose another name.")
    return folder


def file_choices() -> list[str]:
    """Return the files of ComfyUI's folders that may hold a part, each behind the name of its folder."""
    return [f"{folder}/{name}" for folder in part_folders() for name in host.model_files((folder,))]


def source_path(source: str) -> Path | None:
    """Return a model by its name in the list or by its path; None for one that is to be downloaded, or is gone."""
    for folder in part_folders():
        if source.startswith(f"{folder}/"):
            path = host.model_path((folder,), source.removeprefix(f"{folder}/"))
            if path is not None:
                return path
    return snapshot_folder(source) or host.model_path((), source)


def part_folders() -> list[str]:
    """Return the folders of ComfyUI that may hold the file of a part."""
    return [folder for _, folders in FILE_INPUTS.values() for folder in folders]
