"""Where the parts of a model lie: in a turnkey folder, in any folder that holds them, or each in a file of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...interface.errors import WeightsError
from ...members import member_named, members, titles
from ..formats.quantised import model_tensors
from ..formats.sources import ShardedFile, TensorFile, is_first_shard, is_index, open_tensors
from ..names.key_maps import Found, identify
from .experts import Experts, check_pair, double_of, told_apart

COMPONENTS = ("dit", "vae", "t5_encoder", "clip")
CALLED = {"dit": "diffusion transformer", "vae": "VAE", "t5_encoder": "text encoder", "clip": "CLIP visual tower"}
CONFIG = "config.json"
MEMBER = "member"  # in a snapshot's config.json: the model where its tensors do not tell it
DIT, LOW_NOISE = "dit", "low_noise"
TOKENIZER = "tokenizer.json"
TOKENIZERS = (TOKENIZER, "spiece.model")
TENSOR_SUFFIXES = (".safetensors", ".pt", ".pth", ".gguf")
EMBEDDED_TOKENIZER = "spiece_model"  # a tensor in ComfyUI's text encoder files
MAX_FILES = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The file of each component, what the tokenizer is read from, and settings (config.json; empty without one).

    The turnkey layout is a flat folder of config.json, a safetensors file for each component of the member of the
    family that it is, and tokenizer.json. Files that were named one by one may be fewer; the tokenizer is None where
    there is no text encoder.

    `low_noise` is the second transformer of a model of two experts, whose first is the "dit"; `member` the name of the
    model where its tensors do not tell it.
    """

    files: Mapping[str, Path]
    tokenizer: Path | None
    settings: Mapping[str, Any]
    low_noise: Path | None = None
    member: str | None = None

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Find all parts in a folder. Raises WeightsError that names what is missing; reads no data of a tensor."""
        if not folder.is_dir():
            raise WeightsError(f"{folder} is not a folder: choose the folder of a SCAIL-2 snapshot.")
        files = {component: folder / f"{component}.safetensors" for component in COMPONENTS}
        is_turnkey = (folder / CONFIG).is_file() and any(path.is_file() for path in files.values())
        if is_turnkey and any(is_index(path) or is_first_shard(path) for path in folder.iterdir()):
            return cls.assemble(folder, {})  # some of its files are in shards, as others publish them
        if is_turnkey or files["t5_encoder"].is_file():
            _check_turnkey(folder, files)
            there = {name: path for name, path in files.items() if path.is_file()}
            settings = _settings(folder / CONFIG)
            return _with_experts(cls(there, folder / TOKENIZER, settings), folder, settings.get(MEMBER))
        return cls.assemble(folder, {})

    @classmethod
    def assemble(
        cls,
        folder: Path | None,
        parts: Mapping[str, Path],
        needed: tuple[str, ...] | None = None,
        kind: str | None = None,
    ) -> Snapshot:
        """Take the components, "low_noise" and "tokenizer", from `parts` (files or folders), the rest from `folder`.

        `kind` is the name of the member where the user says it.
        Raises WeightsError for what is ambiguous or of another model, and for a `needed` component that is missing
        (None: those that the member of the family needs).
        """
        found = scan(folder) if folder is not None else {}
        experts = _experts(parts, folder, found, kind)
        given = {name: part for name, part in parts.items() if name not in (DIT, LOW_NOISE)}
        files = {name: _one(name, part, scan(part)) if part.is_dir() else part for name, part in given.items()}
        files |= {} if experts is None else {DIT: experts.dit}
        tokenizer = files.pop("tokenizer", None)
        for component in COMPONENTS:
            if component not in files and (component in found or component in (needed or _needed(files.get("dit")))):
                files[component] = _one(component, folder, found)
        if tokenizer is None and "t5_encoder" in files:
            tokenizer = _tokenizer(found, files["t5_encoder"])
        settings = _settings(folder / CONFIG) if folder is not None and (folder / CONFIG).is_file() else {}
        second, member = (None, None) if experts is None else (experts.low_noise, experts.member)
        return cls(files, tokenizer, settings, second, member)

    @property
    def second_expert(self) -> Snapshot:
        """What the second of two experts is loaded from."""
        if self.low_noise is None:
            raise WeightsError("The model has no second expert.")
        return Snapshot({DIT: self.low_noise}, None, self.settings, None, self.member)

    def path(self, component: str) -> Path:
        """Return the file of "dit", "vae", "t5_encoder" or "clip". Raises WeightsError where there is none."""
        return self.files[component] if component in self.files else _one(component, None, {})

    @property
    def tokenizer_file(self) -> Path:
        """What the tokenizer is read from. Raises WeightsError where there is none."""
        if self.tokenizer is None:
            raise WeightsError("No text encoder was given: name its file, or choose a folder that holds it.")
        return self.tokenizer


def _experts(
    parts: Mapping[str, Path], folder: Path | None, found: Mapping[str, list[Path]], kind: str | None
) -> Experts | None:
    """Return the transformers that were named, or those of the folder; None where there is none, or too many."""
    if LOW_NOISE in parts:
        if DIT not in parts:
            raise WeightsError(f"{parts[LOW_NOISE]} is the low-noise expert: name the high-noise one too, with --dit.")
        pair = [_one(DIT, part, scan(part)) if part.is_dir() else part for part in (parts[DIT], parts[LOW_NOISE])]
        check_pair(*pair)
        named = {identify_file(path)[1].member for path in pair}
        return Experts(*pair, member=double_of(named, pair))
    root = folder
    if DIT in parts:
        root = parts[DIT] if parts[DIT].is_dir() else None
        paths = scan(parts[DIT]).get(DIT, []) if parts[DIT].is_dir() else [parts[DIT]]
    else:
        paths = found.get(DIT, [])
    known = {path: identify_file(path)[1].member for path in paths}
    if not known or None in known.values():
        return Experts(parts[DIT]) if DIT in parts and root is None else None
    return told_apart(known, root, is_whole=root is not None, kind=kind)


def _with_experts(snapshot: Snapshot, folder: Path, member: str | None) -> Snapshot:
    """Return a turnkey snapshot with its second expert, if it has one, and the member that its settings name."""
    second = folder / f"{DIT}_{LOW_NOISE}.safetensors"
    if member is not None and all(row.name != member for row in members()):
        raise WeightsError(f"{folder / CONFIG} says that the model is {member!r}, which this program does not know.")
    return replace(snapshot, low_noise=second if second.is_file() else None, member=member)


def identify_file(path: Path) -> tuple[TensorFile, Found]:
    """Open a file of tensors and tell what it is, from its header. Raises WeightsError."""
    file = open_tensors(path)
    return file, identify(model_tensors(file.tensors))


def scan(folder: Path) -> dict[str, list[Path]]:
    """Return the files below a folder by component, and "tokenizer"; files of other things are left out.

    Raises WeightsError for damaged files and for a folder with too many files to be a model's.
    """
    found: dict[str, list[Path]] = {}
    paths = [inner / name for inner, names in _walk(folder) for name in names]
    indexes = [path for path in paths if is_index(path)]
    _check_number(folder, indexes)
    known = {path: identify_file(path) for path in indexes}
    shards = _shards(known)
    firsts = [path for path in paths if is_first_shard(path) and path not in shards]
    _check_number(folder, firsts)
    known |= {path: identify_file(path) for path in firsts}
    shards |= _shards(known) - set(firsts)
    candidates = sorted({*indexes, *(path for path in paths if path.suffix in TENSOR_SUFFIXES)} - shards)
    _check_number(folder, candidates)
    for path in candidates:
        component = (known[path] if path in known else identify_file(path))[1].component
        if component is not None:
            found.setdefault(component, []).append(path)
    for name in TOKENIZERS:
        found.setdefault("tokenizer", []).extend(path for path in paths if path.name == name)
    return found


def _shards(known: Mapping[Path, tuple[TensorFile, Found]]) -> set[Path]:
    return {shard for file, _ in known.values() if isinstance(file, ShardedFile) for shard in file.paths}


def _check_number(folder: Path, files: list[Path]) -> None:
    if len(files) > MAX_FILES:
        raise WeightsError(
            f"{folder} holds {len(files)} model files, more than one model has: choose the folder of one model."
        )


def find_snapshots(roots: Iterable[str | Path]) -> list[Path]:
    """Return the folders that may hold a model, sorted, without hidden ones.

    They are turnkey folders (config.json beside dit.safetensors) at any depth, and folders directly below a root that
    hold model files of another layout.
    """
    found = set()
    for root in map(Path, roots):
        others = set()
        for folder, names in _walk(root):
            below = folder.relative_to(root).parts[:1]
            if CONFIG in names and "dit.safetensors" in names:
                found.add(folder)
            elif below and any(name.endswith(TENSOR_SUFFIXES) for name in names):
                others.add(root / below[0])
        found |= {other for other in others if not any(path.is_relative_to(other) for path in found)}
    return sorted(found)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder below `root` and the names of its files; hidden ones and links in a circle are left out."""
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [n for n in sorted(inner) if not n.startswith(".") and not _leads_back(Path(folder, n))]
        yield Path(folder), [name for name in sorted(names) if not name.startswith(".")]


def _check_turnkey(folder: Path, files: Mapping[str, Path]) -> None:
    if not (folder / CONFIG).is_file():
        raise WeightsError(
            f"{folder} has no {CONFIG}, so it is not a complete SCAIL-2 snapshot: "
            "download the whole snapshot, or choose the folder that holds its files."
        )
    missing = {name: path.name for name, path in files.items() if not path.is_file()}
    needed = _needed(files["dit"]) if missing else ()
    lacking = [name for component, name in missing.items() if component in needed]
    lacking += [] if (folder / TOKENIZER).is_file() else [TOKENIZER]
    if lacking:
        raise WeightsError(
            f"{folder} lacks {', '.join(lacking)}: the download is incomplete, run it again "
            "(files that are there already are kept)."
        )


def _needed(dit: Path | None) -> tuple[str, ...]:
    """Return the components of the model whose diffusion transformer it is; all of them where that is not known."""
    member = identify_file(dit)[1].member if dit is not None and dit.is_file() else None
    return COMPONENTS if member is None else ("dit", *member_named(member).components)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON ({error}): download it again.") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds no settings (a JSON object is needed): download it again.")
    return settings


def _one(component: str, folder: Path | None, found: Mapping[str, list[Path]]) -> Path:
    """Return the one file of a component. Raises WeightsError when there is none, or several."""
    paths = found.get(component, [])
    called = CALLED.get(component, component)
    if not paths and folder is not None and not any(found.values()):
        raise WeightsError(
            f"{folder} has no {CONFIG} and no model file that this program knows: "
            "choose the folder that holds its files."
        )
    if not paths:
        where = f"{folder} holds no {called} of {titles()}" if folder is not None else f"No {called} was given"
        raise WeightsError(f"{where}: name its file, or choose a folder that holds it.")
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise WeightsError(f"{folder} holds several files that are a {called} ({names}): name the one to use.")
    return paths[0]


def _tokenizer(found: Mapping[str, list[Path]], text_encoder: Path) -> Path:
    beside = [text_encoder.with_name(name) for name in TOKENIZERS]
    for path in (*found.get("tokenizer", []), *beside):
        if path.is_file():
            return path
    if EMBEDDED_TOKENIZER in open_tensors(text_encoder).tensors:
        return text_encoder
    raise WeightsError(
        f"There is no tokenizer for {text_encoder}: name a {' or '.join(TOKENIZERS)} of UMT5 "
        "(--tokenizer), or put it beside the text encoder."
    )


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in: following it would never end."""
    return os.path.realpath(folder) in map(os.path.realpath, folder.parents)
