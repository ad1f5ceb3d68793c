"""Finished segments on disk: a run of hours that was stopped goes on where it was.

A segment is found by all that went into it: the numbers of the model's files, text and picture features, references,
settings, its own part of the driving video, and every segment before it. So no other input ever meets it, and a run
whose clip has become longer begins with the segments that both have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..interface.events import LOGGER
from ..interface.requests import SamplingSettings
from ..runtime.device import compute_dtype
from ..weights.checkpoints.identity import file_identity
from .kept_files import keep_file, prune
from .run import Material, Run

FORMAT = "1"  # raised when what is stored under the same key would differ
SUFFIX = ".safetensors"
NAME = "latent"
MAX_BYTES = 4 << 30  # a segment of 81 frames at 896x512 takes 10 MB; the oldest go first


@dataclass(frozen=True, slots=True)
class FinishedSegments:
    """The segments of one run in `folder`: by number, normalised latents [16, T, h, w], float32; `facts` for readers.

    Nothing is kept without a folder.
    """

    folder: Path | None
    keys: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    facts: str

    @classmethod
    def of(cls, folder: Path | None, run: Run, material: Material) -> FinishedSegments:
        """Return where a run's segments are kept. Reads every input once. Raises OSError for a file that is gone."""
        if folder is None:
            return cls(None, (), (), "")
        keys = tuple(_keys(_base_digest(run, material), material))
        facts = {"settings": asdict(run.settings), "mode": run.facts["scene"]["mode"]}
        return cls(folder, keys, tuple(size.shape for size in material.sizes), json.dumps(facts, default=str))

    def leading(self) -> list[np.ndarray]:
        """Return the segments that are there, from the first one on, up to the first that is missing or damaged."""
        found = []
        for number in range(len(self.keys)):
            latent = self._read(number)
            if latent is None:
                break
            found.append(latent)
        return found

    def keep(self, number: int, latent: np.ndarray) -> None:
        """Keep a finished segment; a disk that cannot take it is only noted."""
        if self.folder is None:
            return
        latent = np.ascontiguousarray(latent, np.float32)
        about = {"format": FORMAT, "digest": _digest(latent), "segment": f"{number + 1} of {len(self.keys)}"}
        content = save({NAME: latent}, about | {"run": self.facts})
        try:
            keep_file(self._path(number), lambda file: file.write(content))
            prune(self.folder, SUFFIX, MAX_BYTES)
        except OSError as error:
            LOGGER.warning("Segment %d could not be kept in %s (%s).", number + 1, self.folder, error)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.keys[number][:32]}{SUFFIX}"

    def _read(self, number: int) -> np.ndarray | None:
        path = self._path(number)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            LOGGER.info("%s cannot be read (%s); its segment is made again.", path, error)
            return None
        try:
            length = int.from_bytes(content[:8], "little")
            about = json.loads(content[8 : 8 + length])["__metadata__"]
            latent = load(content)[NAME]
        except (SafetensorError, ValueError, KeyError) as error:
            LOGGER.info("%s is not whole (%s); its segment is made again.", path, error)
            return None
        if latent.shape != self.shapes[number] or _digest(latent) != about.get("digest"):
            LOGGER.info("%s is not what was written; its segment is made again.", path)
            return None
        return latent


def settings_in_key(settings: SamplingSettings) -> str:
    """Return what a segment's name says of the settings: what came later is left out where it changes nothing."""
    return str(settings).replace(", cfg_low=None", "")


def _keys(base: bytes, material: Material) -> Iterator[str]:
    """Return a key per segment, each made from the one before."""
    chain = base
    for number in range(len(material.sizes)):
        digest = hashlib.sha256(chain)
        described, arrays = material.arrays_of(number)
        digest.update(described.encode())
        for array in arrays:
            _add(digest, array)
        chain = digest.digest()
        yield digest.hexdigest()


def _base_digest(run: Run, material: Material) -> bytes:
    settings = settings_in_key(run.settings)
    digest = hashlib.sha256(f"{FORMAT} {mx.default_device()} {settings} {material.described}".encode())
    vae = run.models.vae
    for handle in (*run.models.experts, *(() if vae is None else (vae,))):
        store = handle.store
        precision = compute_dtype(store.precision, handle.component)
        digest.update(f"{file_identity(store.snapshot.path(handle.component))} {precision}".encode())
    for number, expert in enumerate(run.models.experts):
        for lora in expert.loras:
            digest.update(f"{file_identity(lora.path)} {lora.strength}{f' of expert {number}' * (number > 0)}".encode())
    for array in material.arrays():
        _add(digest, array)
    return digest.digest()


def _digest(latent: np.ndarray) -> str:
    digest = hashlib.sha256()
    _add(digest, latent)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, array: np.ndarray | None) -> None:
    array = np.zeros(0) if array is None else array
    digest.update(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
