"""The turnkey snapshot: a flat folder of config.json, four safetensors files and the tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec.errors import WeightsError

COMPONENTS = ("dit", "vae", "t5_encoder", "clip")
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder that has been seen to hold every file, and its settings (config.json)."""

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Check the folder. Raises WeightsError that names what is missing; reads no tensor."""
        if not folder.is_dir():
            raise WeightsError(f"{folder} is not a folder: choose the folder of a SCAIL-2 snapshot.")
        if not (folder / CONFIG).is_file():
            raise WeightsError(
                f"{folder} has no {CONFIG}, so it is not a complete SCAIL-2 snapshot: "
                "download the whole snapshot, or choose the folder that holds its files."
            )
        files = [f"{component}.safetensors" for component in COMPONENTS] + [TOKENIZER]
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise WeightsError(
                f"{folder} lacks {', '.join(missing)}: the download is incomplete, run it again "
                "(files that are there already are kept)."
            )
        try:
            settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{folder / CONFIG} is not valid JSON ({error}): download it again.") from error
        if not isinstance(settings, dict):
            raise WeightsError(f"{folder / CONFIG} holds no settings (a JSON object is needed): download it again.")
        return cls(folder, settings)

    def path(self, component: str) -> Path:
        """Return the file of "dit", "vae", "t5_encoder" or "clip"."""
        return self.folder / f"{component}.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer file."""
        return self.folder / TOKENIZER


def find_snapshots(roots: Iterable[str | Path]) -> list[Path]:
    """Return the folders below the roots that look like snapshots (config.json beside dit.safetensors), sorted."""
    found = set()
    for root in roots:
        for folder, inner, files in os.walk(root, followlinks=True):
            inner[:] = [name for name in inner if not _leads_back(Path(folder, name))]
            if CONFIG in files and "dit.safetensors" in files:
                found.add(Path(folder))
    return sorted(found)


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in: following it would never end."""
    return os.path.realpath(folder) in map(os.path.realpath, folder.parents)
