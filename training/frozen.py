"""The parts that are not trained: a small UMT5 and a small CLIP of random numbers, and a tokenizer of the world.

Random features tell prompts and pictures apart, which is all that the transformer needs of them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mlx_backend.conditioning.clip import encode_clip
from mlx_backend.conditioning.text import encode_text, tokenise
from mlx_backend.interface.events import LogListener
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.weights.checkpoints.components import fitting, load_component
from mlx_backend.weights.checkpoints.snapshot import TOKENIZER, Snapshot
from mlx_backend.weights.checkpoints.tokenizer import load_tokenizer
from mlx_backend.weights.names.layouts import snapshot_name
from world.scenes import WORDS

from .sizes import CLIP, LETTERS, UMT5

SEED = 2


def write_frozen(folder: Path) -> None:
    """Write the text encoder, CLIP and the tokenizer to a folder, as a turnkey snapshot has them; always the same."""
    random = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for component, model in (("t5_encoder", UMT5Encoder(UMT5)), ("clip", ClipVision(CLIP))):
        weights = filled(component, model, random)
        mx.save_safetensors(str(folder / f"{component}.safetensors"), weights)
    unigram_tokenizer(WORDS).save(str(folder / TOKENIZER))


def filled(component: str, model: nn.Module, random: np.random.Generator) -> dict[str, mx.array]:
    """Return random bfloat16 weights for a network under the names that a snapshot has for them."""
    tensors = {}
    for name, array in tree_flatten(model.parameters()):
        shape = tuple(array.shape)
        if bool((array == 1).all()):  # the networks start their norms at one, everything else at zero
            values = 1 + 0.1 * random.normal(size=shape)
        elif name.endswith("bias") or "modulation" in name:
            values = 0.1 * random.normal(size=shape)
        else:
            # A convolution or product keeps the size of what it is given; `head` of CLIP is stored [in, out].
            inputs = shape[0] if name == "head" else np.prod(shape[1:])
            values = random.normal(size=shape) / np.sqrt(inputs)
        tensors[snapshot_name(component, name)] = mx.array(values.astype(np.float32)).astype(mx.bfloat16)
    return tensors


def unigram_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Return a tokenizer of letters, and of `words` where a word begins with a space."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -4.0) for letter in LETTERS)]
    vocabulary += [(f"▁{word}", -1.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


class Encoders:
    """Prompts and pictures to what the transformer reads of them."""

    def __init__(self, folder: Path):
        files = {name: folder / f"{name}.safetensors" for name in ("t5_encoder", "clip")}
        snapshot = Snapshot(files, folder / TOKENIZER, {})
        self._text, self._clip = (load_component(fitting(snapshot, name, "float32"), lambda: None) for name in files)
        self._tokenizer = load_tokenizer(snapshot.tokenizer)

    def text(self, prompts: list[str]) -> list[np.ndarray]:
        """Return the features [L, dim] of each prompt."""
        ids = [tokenise(self._tokenizer, prompt, LogListener()) for prompt in prompts]
        return encode_text(self._text, ids, lambda: None)

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """Return the tokens [17, dim] of a picture [H, W, 3] in 0..255."""
        return encode_clip(self._clip, picture.astype(np.float32) / 255)
