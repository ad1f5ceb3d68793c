"""The program around the nodes: ComfyUI, or a plain process (tests, the demo) where its modules are not loaded."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.events import LOGGER, Listener, Progress
from ..mlx_backend.interface.segments import KEPT
from ..mlx_backend.interface.small_model import ASSETS
from ..mlx_backend.interface.workload import Workload
from ..mlx_backend.media.read import VIDEO_SUFFIXES
from ..mlx_backend.weights.checkpoints.snapshot import TOKENIZERS
from .neighbour import neighbour
from .preview import Previews
from .status import Status

FOLDER_TYPE = "scail2"
OUTPUT = Path("output")  # outside ComfyUI
SAMPLE = "scail2_"  # before the names of samples in ComfyUI's input folder
SAMPLE_TYPES = (".png", ".mp4")
TOKENIZER_FOLDERS = ("text_encoders", FOLDER_TYPE)
WHOLE = 1000  # parts of a bar over a whole run
TEXT_INTERVAL = 0.5  # seconds between two texts of a phase: a download moves on many times a second
MAX_DEPTH = 3  # folders below one of ComfyUI's that are searched; an end also to links in a circle


class HostListener(Listener):
    """ComfyUI's progress bar, previews and Cancel button; warnings, notes and where the run is as text under the node.

    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar = None
        self._phase = ""
        self._event: Progress | None = None
        self._warned: list[str] = []
        self._noted: list[str] = []
        self._clock = clock
        self._status = Status(clock)
        self._line, self._shown_at = "", -math.inf
        self._previews = Previews()

    def expect(self, work: Workload) -> None:
        """Let one bar stand for the whole run, and the time that is told."""
        self._status.expect(work)
        self._bar = None

    def progress(self, event: Progress) -> None:
        """Move the bar, and say where the run is; a phase of one part moves no bar of its own."""
        if event == self._event:  # a share of a phase that is no whole frame more
            return
        self._event = event
        fresh = event.phase != self._phase
        if fresh:
            self._phase = event.phase
            LOGGER.info("SCAIL-2: %s", event.phase)
            if self._status.share is None:
                self._bar = None  # ComfyUI's passes on nothing below what it passed on last
        self._line = self._status.line(event)
        if fresh or event.done >= event.total or self._clock() - self._shown_at >= TEXT_INTERVAL:
            self._show()
        share = self._status.share
        done, total = (event.done, event.total) if share is None else (round(share * WHOLE), WHOLE)
        utils = sys.modules.get("comfy.utils")
        if utils is None or total <= 1:
            return
        if self._bar is None:
            self._bar = utils.ProgressBar(total)
        self._bar.update_absolute(done, total)

    @property
    def wants_preview(self) -> bool:
        """Whether ComfyUI's preview method is another than "none"."""
        return self._previews.wanted

    def preview(self, latent: np.ndarray) -> None:
        """Show the latent [16, T, h, w] under the node, as ComfyUI shows those of its own samplers."""
        utils, picture = sys.modules.get("comfy.utils"), self._previews.picture(latent)
        if utils is None or picture is None:
            return
        if self._bar is None:
            self._bar = utils.ProgressBar(1)
        self._bar.update_absolute(self._bar.current, self._bar.total, picture)

    def warn(self, message: str) -> None:
        """Log a warning, and show it under the node."""
        LOGGER.warning(message)
        self._warned.append(f"Warning: {message}")
        self._show()

    def note(self, message: str) -> None:
        """Log a note, and show it under the node."""
        LOGGER.info(message)
        self._noted.append(message)
        self._show()

    def check_cancelled(self) -> None:
        """Raise ComfyUI's own exception when Cancel was pressed."""
        management = sys.modules.get("comfy.model_management")
        if management is not None:
            management.throw_exception_if_processing_interrupted()

    def _show(self) -> None:
        """Show where the run is, then warnings, then notes, as the running node's text; some pages have no such texts.

        What moves comes first: a page with previews leaves room for little more.
        """
        self._shown_at = self._clock()
        lines = [*([self._line] if self._line else []), *self._warned, *self._noted]
        server, execution = sys.modules.get("server"), sys.modules.get("comfy_execution.utils")
        context = execution.get_executing_context() if execution is not None else None
        instance = getattr(getattr(server, "PromptServer", None), "instance", None)
        if context is not None and hasattr(instance, "send_progress_text"):
            instance.send_progress_text("\n".join(lines), context.node_id)


def file_state(path: Path) -> tuple[str, int, int] | tuple[str]:
    """Return what changes when a file does: path, time and size; the path alone where a link leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return (str(path),)
    return str(path), status.st_mtime_ns, status.st_size


def free_torch_memory() -> None:
    """Make ComfyUI unload its own models: on a Mac they share the memory that MLX is about to need."""
    management = sys.modules.get("comfy.model_management")
    if management is not None:
        with neighbour().undisturbed():  # else it would ask for ours too
            management.unload_all_models()
        management.soft_empty_cache()


def register_model_folder() -> None:
    """Add models/scail2 to ComfyUI's folders, beside those that the user's extra_model_paths name."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is not None:
        folder_paths.add_model_folder_path(FOLDER_TYPE, str(Path(folder_paths.models_dir) / FOLDER_TYPE))


def input_videos() -> list[str]:
    """Return the names of the videos in ComfyUI's input folder; outside ComfyUI the pack's samples."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None:
        return sorted(f"{SAMPLE}{path.name}" for path in ASSETS.glob("*.mp4"))
    folder = Path(folder_paths.get_input_directory())
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in files if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def input_file(name: str) -> Path:
    """Return a file of ComfyUI's input folder by its name, or as ComfyUI writes it: "clip.mp4 [output]".

    Outside ComfyUI a sample of the pack by the name that it has there, or a path. Raises what ComfyUI raises for a name
    that leaves its folders.
    """
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is not None:
        return Path(folder_paths.get_annotated_filepath(name))
    sample = ASSETS / name.removeprefix(SAMPLE)
    return sample if name.startswith(SAMPLE) and sample.is_file() else Path(name)


def linked_outputs() -> frozenset[int] | None:
    """Return which outputs of the node at work are connected, by number; None where that cannot be told.

    ComfyUI asks a node for all of its outputs; which of them anybody takes stands in the prompt that it works on.
    """
    server, execution = sys.modules.get("server"), sys.modules.get("comfy_execution.utils")
    context = execution.get_executing_context() if execution is not None else None
    instance = getattr(getattr(server, "PromptServer", None), "instance", None)
    running = getattr(getattr(instance, "prompt_queue", None), "currently_running", {})
    for _, prompt_id, prompt, *_ in list(running.values()) if context is not None else ():
        if prompt_id == context.prompt_id and context.node_id in prompt:
            given = [value for node in prompt.values() for value in node.get("inputs", {}).values()]
            links = [value for value in given if isinstance(value, list) and len(value) == 2]
            return frozenset(slot for node, slot in links if node == context.node_id)
    return None


def offer_samples() -> None:
    """Copy the pack's samples to ComfyUI's input folder, so that its workflows can be queued at once.

    A file of that name that is there already stays as it is.
    """
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None:
        return
    folder = Path(folder_paths.get_input_directory())
    for sample in sorted(ASSETS.glob("*.*")):
        target = folder / f"{SAMPLE}{sample.name}"
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


def resume_folder() -> Path | None:
    """Return where finished segments are kept: in ComfyUI's output folder, as it empties its own temp folder."""
    folder_paths = sys.modules.get("folder_paths")
    return None if folder_paths is None else Path(folder_paths.get_output_directory()) / KEPT


def output_place(prefix: str, width: int, height: int) -> tuple[Path, str, int]:
    """Return the folder, the name and the number of the next file that ComfyUI would save under a prefix.

    Its folder lies in ComfyUI's output folder, outside ComfyUI in ./output; `width` and `height` are put for %width%
    and %height%. Raises RequestError for a prefix without a name; ComfyUI itself refuses one that leaves its folder.
    """
    name = Path(prefix).name
    if name in ("", ".."):
        raise RequestError(f"The filename_prefix '{prefix}' names no file: write one like video/scail2.")
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is not None:
        output = folder_paths.get_output_directory()
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, output, width, height)
        return Path(folder), name, number
    folder = (OUTPUT / prefix).parent
    if not folder.resolve().is_relative_to(OUTPUT.resolve()):
        raise RequestError(f"The filename_prefix '{prefix}' leaves the output folder: write one like video/scail2.")
    return folder, name, 1


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
