"""A changed input of every kind: what was kept of other runs must never be taken for its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mlx_backend.interface.continuation import Continuation
from mlx_backend.interface.events import Listener
from mlx_backend.interface.requests import Economy, LoraRequest
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.formats.safetensors_file import SafetensorsFile

from .stage import SNAPSHOT
from .tally import Tally
from .tiny import a_sampling, a_scene

LAYER = "diffusion_model.blocks.0.self_attn.q"


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a run is made from; `scene` and `settings` are what differs from the usual ones."""

    model: Path
    scene: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    prompts: Prompts = Prompts("a puppet dances", "grey")
    loras: tuple[LoraRequest, ...] = ()
    precision: str = "auto"

    def frames(self, kept: Path | None) -> np.ndarray:
        """Return the frames; what is kept of this and other runs lies in a folder."""
        cache = None if kept is None else kept / "conditioning"
        store = ModelStore(Snapshot.open(self.model), self.precision, cache=cache)
        session = Session(listener=Listener(), kept=None if kept is None else kept / "segments")
        scene, settings = a_scene(**self.scene), a_sampling(**{"cfg": 3.0} | self.settings)
        return generate(prepare(Models.of(store, self.loras), self.prompts, scene, settings, session), None, session)


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Change `count` inputs, one of each kind in turn. Yields one tally.

    All runs share the folders in which encoded inputs and finished segments are kept. A run with a changed input is
    right if its frames are those of the same run without such folders. So that a change of no effect does not pass for
    a right one, the kinds whose frames stayed those of the unchanged run are counted.
    """
    generator, tally, without = np.random.default_rng(seed), Tally("stale"), []
    shutil.copytree(SNAPSHOT, folder / "model")
    lora = _lora(folder / "lora.safetensors", generator)
    usual = Inputs(folder / "model", loras=(LoraRequest(lora, 0.5),))
    kept = folder / "kept"
    first = usual.frames(kept)
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        changed = KINDS[kind](usual, generator, folder)
        fresh, shared = changed.frames(None), changed.frames(kept)
        tally.add(None if np.array_equal(fresh, shared) else f"{kind}: frames of another run were taken")
        if np.array_equal(fresh, first):
            without.append(kind)
    tally.notes = [f"{len(set(kinds[:count]))} kinds", f"without effect: {', '.join(without) or 'none'}"]
    yield tally


Change = Callable[[Inputs, np.random.Generator, Path], Inputs]


def _scene(**changes: Any) -> Change:
    return lambda usual, _, __: replace(usual, scene={**usual.scene, **changes})


def _settings(**changes: Any) -> Change:
    return lambda usual, _, __: replace(usual, settings={**usual.settings, **changes})


def _picture(name: str) -> Change:
    """Change one square of a picture or a mask, in its last frame, so that it stays what it is."""

    def change(usual: Inputs, generator: np.random.Generator, _: Path) -> Inputs:
        array = getattr(a_scene(), name).copy()
        row, column = generator.integers(0, array.shape[1] - 8, 2)
        square = array[-1, row : row + 8, column : column + 8]
        square[...] = (0, 0, 1) if "mask" in name and (square[..., 0] != 0).any() else 1 - square
        if "mask" in name:
            square[...] = np.where(square.sum(-1, keepdims=True) > 1.5, 1, (0, 0, 1))
        return replace(usual, scene={name: array})

    return change


def _extra_reference(usual: Inputs, generator: np.random.Generator, _: Path) -> Inputs:
    scene = a_scene()
    more = generator.random((1, *scene.references.shape[1:]), np.float32)
    masks = np.concatenate([scene.reference_masks] * 2)
    return replace(usual, scene={"references": np.concatenate([scene.references, more]), "reference_masks": masks})


def _weights(part: str, name: str) -> Change:
    """Change the signs of one tensor of a part of the model, in a file that is the same elsewhere."""

    def change(usual: Inputs, generator: np.random.Generator, folder: Path) -> Inputs:
        model = folder / f"model-{generator.integers(2**62)}"
        shutil.copytree(usual.model, model)
        path = model / f"{part}.safetensors"
        content = bytearray(path.read_bytes())
        begin, end, width = tensor_span(content, name)
        for place in range(begin + width - 1, end, width):
            content[place] ^= 0x80
        path.write_bytes(content)
        return replace(usual, model=model)

    return change


def tensor_span(content: bytes, name: str) -> tuple[int, int, int]:
    """Return where a tensor begins and ends in a safetensors file, and the bytes of each of its numbers."""
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length])[name]
    begin, end = (8 + length + offset for offset in told["data_offsets"])
    return begin, end, (end - begin) // int(np.prod(told["shape"]))


def _tokenizer(usual: Inputs, generator: np.random.Generator, folder: Path) -> Inputs:
    model = folder / f"model-{generator.integers(2**62)}"
    shutil.copytree(usual.model, model)
    found = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = found["model"]["vocab"]
    first, second = (len(pieces) - 1 - n for n in range(2))
    names = [n for n, piece in enumerate(pieces) if piece[0].strip("▁") in ("p", "a", "n", "e", "d")][:2]
    first, second = names if len(names) == 2 else (first, second)
    pieces[first][0], pieces[second][0] = pieces[second][0], pieces[first][0]
    (model / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    return replace(usual, model=model)


def _lora(path: Path, generator: np.random.Generator) -> Path:
    dim = SafetensorsFile(SNAPSHOT / "dit.safetensors").tensors["blocks.0.self_attn.q.weight"].shape[0]
    down, up = (generator.normal(size=shape).astype(np.float32) for shape in ((4, dim), (dim, 4)))
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, path)
    return path


def _other_lora(usual: Inputs, generator: np.random.Generator, folder: Path) -> Inputs:
    return replace(usual, loras=(LoraRequest(_lora(folder / "other.safetensors", generator), 0.5),))


KINDS: dict[str, Change] = {
    "driving video": _picture("driving"),
    "driving mask": _picture("driving_mask"),
    "reference": _picture("references"),
    "reference mask": _picture("reference_masks"),
    "another reference": _extra_reference,
    "prompt": lambda usual, _, __: replace(usual, prompts=Prompts("a puppet sits", "grey")),
    "negative prompt": lambda usual, _, __: replace(usual, prompts=Prompts("a puppet dances", "red")),
    "mode": _scene(mode="replacement"),
    "size": _scene(width=64),
    "first frame": _scene(start_frame=2),
    "number of frames": _scene(max_frames=9),
    "steps": _settings(steps=3),
    "cfg": _settings(cfg=4.0),
    "shift": _settings(shift=4.0),
    "solver": _settings(solver="euler"),
    "grid": _settings(grid="simple"),
    "seed": _settings(seed=1),
    "segment length": _settings(segment_length=13),
    "segment overlap": _settings(segment_overlap=1),
    "pose rope": _settings(pose_rope="midpoint"),
    "step cache": _settings(economy=Economy(step_cache="easycache", threshold=1.0), steps=6),
    "guidance": _settings(economy=Economy(guidance_until=0.5)),
    "history": _settings(continuation=Continuation(history="latents")),
    "colour anchor": _settings(continuation=Continuation(anchor="latent")),
    "segment seed": _settings(continuation=Continuation(seed="advancing")),
    "a matrix of the transformer": _weights("dit", "blocks.1.ffn.0.weight"),
    "a norm of the transformer": _weights("dit", "blocks.1.self_attn.norm_q.weight"),
    "a bias of the transformer": _weights("dit", "blocks.1.ffn.2.bias"),
    "the VAE": _weights("vae", "decoder.middle.0.residual.2.weight"),
    "a norm of the text encoder": _weights("t5_encoder", "blocks.0.norm1.weight"),
    "CLIP": _weights("clip", "transformer.0.attn.to_qkv.bias"),
    "tokenizer": _tokenizer,
    "a LoRA's file": _other_lora,
    "a LoRA's strength": lambda usual, _, __: replace(usual, loras=(replace(usual.loras[0], strength=-2.0),)),
    "no LoRA": lambda usual, _, __: replace(usual, loras=()),
}
