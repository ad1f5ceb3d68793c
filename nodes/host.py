"""The program around the nodes: ComfyUI, or a plain process (tests, the demo) where its modules are not loaded."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..mlx_backend.spec.events import LOGGER, Progress
from ..mlx_backend.weights.snapshot import TOKENIZERS

FOLDER_TYPE = "scail2"
ASSETS = Path(__file__).parent.parent / "assets"
SAMPLE_TYPES = (".png", ".mp4")
TOKENIZER_FOLDERS = ("text_encoders", FOLDER_TYPE)
MAX_DEPTH = 3  # folders below one of ComfyUI's that are searched; an end also to links in a circle


class HostListener:
    """Progress to ComfyUI's bar, warnings and notes to its log and under the node, and its Cancel button."""

    def __init__(self) -> None:
        self._bar = None
        self._phase = ""
        self._told: list[str] = []

    def progress(self, event: Progress) -> None:
        """Move the bar; a phase of one part is only named in the log."""
        if event.phase != self._phase:
            self._phase = event.phase
            LOGGER.info("SCAIL-2: %s", event.phase)
        utils = sys.modules.get("comfy.utils")
        if utils is None or event.total <= 1:
            return
        if self._bar is None:
            self._bar = utils.ProgressBar(event.total)
        self._bar.update_absolute(event.done, event.total)

    def warn(self, message: str) -> None:
        """Log a warning, and show it under the node."""
        LOGGER.warning(message)
        self._show(f"Warning: {message}")

    def note(self, message: str) -> None:
        """Log a note, and show it under the node."""
        LOGGER.info(message)
        self._show(message)

    def check_cancelled(self) -> None:
        """Raise ComfyUI's own exception when Cancel was pressed."""
        management = sys.modules.get("comfy.model_management")
        if management is not None:
            management.throw_exception_if_processing_interrupted()

    def _show(self, message: str) -> None:
        """Show all that was told so far as the running node's text; pages without such texts show nothing."""
        self._told.append(message)
        server, execution = sys.modules.get("server"), sys.modules.get("comfy_execution.utils")
        context = execution.get_executing_context() if execution is not None else None
        instance = getattr(getattr(server, "PromptServer", None), "instance", None)
        if context is not None and hasattr(instance, "send_progress_text"):
            instance.send_progress_text("\n".join(self._told), context.node_id)


def free_torch_memory() -> None:
    """Make ComfyUI unload its own models: on a Mac they share the memory that MLX is about to need."""
    management = sys.modules.get("comfy.model_management")
    if management is not None:
        management.unload_all_models()
        management.soft_empty_cache()


def register_model_folder() -> None:
    """Add models/scail2 to ComfyUI's folders, beside those that the user's extra_model_paths name."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is not None:
        folder_paths.add_model_folder_path(FOLDER_TYPE, str(Path(folder_paths.models_dir) / FOLDER_TYPE))


def offer_samples() -> None:
    """Copy the pack's samples to ComfyUI's input folder, so that its workflows can be queued at once.

    A file of that name that is there already stays as it is.
    """
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None:
        return
    folder = Path(folder_paths.get_input_directory())
    for sample in sorted(ASSETS.glob("*.*")):
        target = folder / f"scail2_{sample.name}"
        if sample.suffix in SAMPLE_TYPES and not target.exists():
            aside = target.with_name(f".{target.name}.part")
            try:
                shutil.copyfile(sample, aside)
                aside.replace(target)
            except OSError as error:
                LOGGER.warning("The sample %s could not be copied to %s (%s).", sample.name, folder, error)


def model_roots() -> list[Path]:
    """Return the folders that may hold snapshots, the user's own first; none outside ComfyUI."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None or FOLDER_TYPE not in folder_paths.folder_names_and_paths:
        return []
    return [Path(path) for path in folder_paths.get_folder_paths(FOLDER_TYPE)]


def download_root() -> Path:
    """Return where downloads go: ComfyUI's default folder for snapshots, or the current folder outside ComfyUI."""
    folder_paths = sys.modules.get("folder_paths")
    return Path(folder_paths.models_dir) / FOLDER_TYPE if folder_paths is not None else Path(FOLDER_TYPE)


def cache_folder() -> Path | None:
    """Return where encoded prompts and pictures are kept: in ComfyUI's user folder; None outside ComfyUI."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None:
        return None
    return Path(folder_paths.get_user_directory()) / "scail2_mlx" / "conditioning"


def model_files(folders: tuple[str, ...]) -> list[str]:
    """Return the names of the files in ComfyUI's model folders of these types, those that exist.

    Its own lists hold no GGUF unless another pack reads those.
    """
    folder_paths = sys.modules.get("folder_paths")
    known = getattr(folder_paths, "folder_names_and_paths", {})
    listed = [name for folder in folders if folder in known for name in folder_paths.get_filename_list(folder)]
    return list(dict.fromkeys([*listed, *_walk(folders, (".gguf",))]))


def model_path(folders: tuple[str, ...], name: str) -> Path | None:
    """Return a model file by its name in ComfyUI's lists or by its path; None if there is none."""
    folder_paths = sys.modules.get("folder_paths")
    known = getattr(folder_paths, "folder_names_and_paths", {})
    listed = [folder_paths.get_full_path(folder, name) for folder in folders if folder in known]
    for path in (*listed, name):
        if path is not None and Path(path).is_file():
            return Path(path)
    return None


def tokenizer_files() -> dict[str, Path]:
    """Return the tokenizers beside text encoders and in snapshots, which ComfyUI's own lists leave out, by name."""
    return {name: path for name, path in _walk(TOKENIZER_FOLDERS, TOKENIZERS).items() if path.name in TOKENIZERS}


def _walk(folders: tuple[str, ...], endings: tuple[str, ...]) -> dict[str, Path]:
    """Return the files with these endings in ComfyUI's folders of these types, by their paths relative to those.

    Of equal names the first counts, as in ComfyUI.
    """
    folder_paths = sys.modules.get("folder_paths")
    known = getattr(folder_paths, "folder_names_and_paths", {})
    found: dict[str, Path] = {}
    for root in [Path(root) for kind in folders if kind in known for root in folder_paths.get_folder_paths(kind)]:
        for folder, inner, names in os.walk(root, followlinks=True):
            below = Path(folder).relative_to(root)
            inner[:] = sorted(n for n in inner if not n.startswith(".")) if len(below.parts) < MAX_DEPTH else []
            for name in sorted(names):
                if name.endswith(endings) and not name.startswith("."):
                    found.setdefault((below / name).as_posix(), Path(folder) / name)
    return found
