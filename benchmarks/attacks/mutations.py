"""Mutated files over every reader: our errors only, no more than 2 GB, no more than 10 seconds."""

from __future__ import annotations

import importlib.util
import io
import json
import multiprocessing
import resource
import struct
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_backend.interface.small_model import SMALL_MODEL
from mlx_backend.weights.checkpoints.snapshot import CONFIG

from .stage import ROOT, SNAPSHOT
from .tally import Tally

SECONDS, BYTES = 10.0, 2 << 30
STARTING = 60.0  # seconds for a new process to import what it reads with
HEAD = 4096  # bytes at the start of a file, where most that can be wrong stands
SPIECE = ROOT / "tests" / "data" / "spiece" / "plain.model"
NUMBERS = (b"-1", b"0", b"1e999", b"99999999999999999999", b"NaN", b"null", b"[]", b"{}", b'""', b"true", b"0.5")


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of file: whole bytes of it, the name it must have, and the name of what reads it (READERS)."""

    content: bytes
    name: str
    reader: str
    beside: Mapping[str, Path]


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Read `count` mutated files, the same number of every kind. Yields a tally for each kind."""
    kinds = subjects(folder)
    shares = np.bincount(np.arange(count) % len(kinds), minlength=len(kinds))
    with _Reader() as reader:
        for (kind, subject), share in zip(kinds.items(), shares, strict=True):
            generator, tally = np.random.default_rng([seed, len(subject.content)]), Tally(f"mutations, {kind}")
            place = folder / kind
            place.mkdir()
            for name, path in subject.beside.items():
                (place / name).symlink_to(path)
            reader.slowest = reader.largest = 0
            tally.notes.append(f"{_read_all(reader, subject, generator, int(share), place, tally)} were read")
            tally.notes.append(f"at most {reader.slowest:.1f} s and {reader.largest / 1e6:.0f} MB more")
            yield tally


def _read_all(
    reader: _Reader, subject: Subject, generator: np.random.Generator, count: int, place: Path, tally: Tally
) -> int:
    """Read the whole file and so many mutated ones, and return how many of those were taken for what they are."""
    taken, path = 0, place / subject.name
    path.write_bytes(subject.content)
    finding, was_taken = reader.read(subject.reader, path)
    if not was_taken:
        raise SystemExit(f"The whole file {path} is not read: {finding}")
    for number in range(count):
        path.write_bytes(mutated(subject.content, generator, is_text=subject.name.endswith(".json")))
        finding, was_taken = reader.read(subject.reader, path)
        taken += was_taken
        if finding is not None:
            kept = path.rename(place / f"found-{number}-{path.name}")
            finding = f"{kept.name}: {finding}"
        tally.add(finding)
    return taken


def mutated(content: bytes, generator: np.random.Generator, *, is_text: bool) -> bytes:
    """Return a copy with one to four things done to it, mostly near its start."""
    made = bytearray(content)
    for _ in range(int(generator.integers(1, 5))):
        end = len(made) if generator.random() < 0.3 else min(HEAD, len(made))
        place = int(generator.integers(max(end, 1)))
        length = int(2 ** generator.uniform(0, 12))
        way = int(generator.integers(8 if is_text else 7))
        if way == 0:
            made[place : place + 1] = generator.bytes(1)
        elif way == 1:
            value = (0, 1, 0x7F, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)[generator.integers(10)]
            made[place : place + 8] = struct.pack("<Q", value)[: 2 ** int(generator.integers(4))]
        elif way == 2:
            del made[place:]
        elif way == 3:
            del made[place : place + length]
        elif way == 4:
            made[place:place] = made[place : place + length]
        elif way == 5:
            made[place : place + length] = generator.bytes(length)
        elif way == 6:
            made[place : place + length] = bytes(length)
        else:
            _change_word(made, place, generator)
    return bytes(made)


def _change_word(made: bytearray, place: int, generator: np.random.Generator) -> None:
    """Put an odd value of JSON for what stands between two marks."""
    start = next((n for n in range(place, len(made)) if made[n] in b":,["), len(made)) + 1
    end = next((n for n in range(start, len(made)) if made[n] in b",]}"), len(made))
    made[start:end] = NUMBERS[generator.integers(len(NUMBERS))]


# What is mutated


def subjects(folder: Path) -> dict[str, Subject]:
    """Return a small whole file of every kind. GGUF and PyTorch's are written by hand, as the format says."""
    dit = (SNAPSHOT / "t5_encoder.safetensors").read_bytes()
    beside = {"t5_encoder.safetensors": SNAPSHOT / "t5_encoder.safetensors"}
    without = {path.name: path for path in SMALL_MODEL.iterdir() if path.name != CONFIG}
    picture, array = folder / "seed.png", folder / "seed.npy"
    noise = np.random.default_rng(1).integers(0, 256, (3, 24, 32, 3), np.uint8)
    Image.fromarray(noise[0]).save(picture)
    np.save(array, noise)
    shard = {"weight_map": dict.fromkeys(_names(dit), "t5_encoder.safetensors")}
    made = {
        "safetensors": Subject(dit, "a.safetensors", "tensors", {}),
        "pth": Subject(checkpoint(), "a.pth", "tensors", {}),
        "index json": Subject(json.dumps(shard).encode(), "a.safetensors.index.json", "tensors", beside),
        "config json": Subject((SMALL_MODEL / CONFIG).read_bytes(), CONFIG, "snapshot", without),
        "tokenizer json": Subject((SNAPSHOT / "tokenizer.json").read_bytes(), "tokenizer.json", "tokenizer", {}),
        "spiece": Subject(SPIECE.read_bytes(), "spiece.model", "tokenizer", {}),
        "npy": Subject(array.read_bytes(), "a.npy", "media", {}),
        "png": Subject(picture.read_bytes(), "a.png", "media", {}),
        "mp4": Subject((ROOT / "assets" / "driving.mp4").read_bytes(), "a.mp4", "media", {}),
    }
    if importlib.util.find_spec("gguf") is not None:
        made["gguf"] = Subject(gguf(), "a.gguf", "tensors", {})
    return made


def _names(content: bytes) -> list[str]:
    length = struct.unpack("<Q", content[:8])[0]
    return [name for name in json.loads(content[8 : 8 + length]) if name != "__metadata__"]


def checkpoint() -> bytes:
    """Return a PyTorch checkpoint of two tensors: a zip of a pickle, by its operations, and of storages."""

    def word(text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text)) + text.encode()

    def row(*numbers: int) -> bytes:
        return b"(" + b"".join(bytes((ord("K"), number)) for number in numbers) + b"t"

    def tensor(key: str, rows: int, columns: int) -> bytes:
        kind, length = b"ctorch\nFloatStorage\n", bytes((ord("K"), rows * columns))
        storage = b"(" + word("storage") + kind + word(key) + word("cpu") + length + b"tQ"
        rest = b"K\x00" + row(rows, columns) + row(columns, 1) + b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"

    body = b"\x80\x02}(" + word("a.weight") + tensor("0", 4, 8) + word("b.weight") + tensor("1", 8, 4) + b"u."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", body)
        archive.writestr("a/byteorder", b"little")
        for key in "01":
            archive.writestr(f"a/data/{key}", np.arange(32, dtype=np.float32).tobytes())
        archive.writestr("a/version", b"3\n")
    return file.getvalue()


def gguf() -> bytes:
    """Return a GGUF file of a dense tensor and one of Q8_0."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    shapes = (("a.weight", (32, 4), 0, 0), ("b.weight", (64, 2), 8, 512))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("wan")
    for name, shape, kind, offset in shapes:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    head += bytes(-len(head) % 32)
    return head + np.linspace(-1, 1, 128, dtype=np.float32).tobytes() + bytes(range(136)) + bytes(24)


# What reads it, in a process of its own


def _tensors(path: Path) -> None:
    from mlx_backend.weights.checkpoints.snapshot import identify_file

    file, _ = identify_file(path)
    for name in file.tensors:
        file.read(name)


def _snapshot(path: Path) -> None:
    from mlx_backend.interface.limits import Limits
    from mlx_backend.weights.checkpoints.components import fitting
    from mlx_backend.weights.checkpoints.snapshot import Snapshot

    from .tiny import a_sampling, a_scene

    found = Snapshot.open(path.parent)
    for part in ("dit", "clip"):
        fitting(found, part, "auto")
    limits = Limits.of(found.settings)
    limits.held(a_scene())
    limits.held(a_sampling())


def _tokenizer(path: Path) -> None:
    from mlx_backend.weights.checkpoints.tokenizer import load_tokenizer

    load_tokenizer(path).encode("A fox ﬁnds 女孩 on the beach.")


def _media(path: Path) -> None:
    from mlx_backend.media.footage import open_footage
    from mlx_backend.media.read import read_video

    for picture in open_footage(path):
        picture.sum()
    read_video(path)


READERS: dict[str, Callable[[Path], None]] = {
    "tensors": _tensors,
    "snapshot": _snapshot,
    "tokenizer": _tokenizer,
    "media": _media,
}


class _Reader:
    """A process that reads files, and is begun again when it ends or takes too long; its slowest and largest file."""

    def __init__(self) -> None:
        self.slowest, self.largest = 0.0, 0
        self._process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, reader: str, path: Path) -> tuple[str | None, bool]:
        """Return what a file has done that it should not, and whether it was taken for what it is."""
        if self._process is None:
            self._begin()
        self._connection.send((reader, path))
        if not self._connection.poll(SECONDS):
            self._end()
            return f"took more than {SECONDS:.0f} s", False
        try:
            finding, was_taken, seconds, more = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._end()
            return f"ended its process with {code}", False
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, more)
        if finding is None and more > BYTES:
            finding = f"took {more / 1e9:.1f} GB"
        if finding is not None:
            self._end()
        return finding, was_taken

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(STARTING) or self._connection.recv() != "ready":
            raise SystemExit("The process that reads did not start.")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _serve(connection: Connection) -> None:
    import logging
    import time

    from mlx_backend.interface.errors import BackendError
    from mlx_backend.runtime.device import require_mlx

    require_mlx()
    logging.disable(logging.CRITICAL)
    _warm()
    before = _peak()
    _limit_memory()
    connection.send("ready")
    while True:
        reader, path = connection.recv()
        since, finding, was_taken = time.perf_counter(), None, False
        try:
            READERS[reader](path)
            was_taken = True
        except BackendError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                finding = f"was refused by no sentence: {str(error)[:300]!r}"
        except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {str(error)[:200]}"
            finding = f"raised {told} ({Path(where.filename).name}:{where.lineno})"
        connection.send((finding, was_taken, time.perf_counter() - since, _peak() - before))


def _warm() -> None:
    """Import what reading needs, so that its memory is not counted to a file."""
    whole = {"tensors": SNAPSHOT / "t5_encoder.safetensors", "snapshot": SMALL_MODEL / CONFIG}
    whole |= {"tokenizer": SNAPSHOT / "tokenizer.json", "media": ROOT / "assets" / "driving.mp4"}
    for reader, path in whole.items():
        READERS[reader](path)


def _limit_memory() -> None:
    """Have the system refuse what is far too much, where it can (Linux), before it takes the machine down.

    It counts addresses, of which threads and allocators take more than they use; what counts is what is resident.
    """
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + 4 * BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
