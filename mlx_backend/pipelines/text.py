"""Prompts to features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..conditioning.text import encode_text, tokenise
from ..interface.errors import WeightsError
from ..interface.events import Listener, Progress
from ..runtime.memory import bounded_cache
from ..weights.checkpoints.tokenizer import load_tokenizer
from .conditioning_cache import ConditioningCache, ids_bytes
from .store import Handle, enter, get_text_encoder


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the clip should show, and what it should not (empty, as upstream)."""

    positive: str
    negative: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """Features [L, dim], float32, of the prompt and of the negative prompt, L up to 512.

    `prompts` and `encoder` say what they were made from and with, where that is known; nothing is computed from them.
    """

    positive: np.ndarray
    negative: np.ndarray
    prompts: Prompts | None = None
    encoder: Handle | None = None


def encode_prompts(handle: Handle, prompt: str, negative: str, listener: Listener) -> TextFeatures:
    """Clean, tokenise and encode both prompts. An empty one is a single end token, as upstream has it.

    What was encoded before comes from the cache; the encoder is loaded only for what is not there.
    """
    elsewhere = handle.store.elsewhere
    if elsewhere is not None:
        return elsewhere.call(encode_prompts, handle, prompt, negative, listener, listener=listener)
    path = handle.store.snapshot.tokenizer_file
    tokenizer = load_tokenizer(path)
    ids = [tokenise(tokenizer, prompt, listener), tokenise(tokenizer, negative, listener, "negative prompt")]
    cache = ConditioningCache(handle.store.cache)
    keys = [cache.key(handle, ids_bytes(prompt)) for prompt in ids]
    made = [cache.get(key) for key in keys]
    missing = {tuple(prompt): key for prompt, key, found in zip(ids, keys, made, strict=True) if found is None}
    fresh = {}
    if missing:
        features = _encode(handle, path, [list(prompt) for prompt in missing], listener)
        fresh = dict(zip(missing, features, strict=True))
        for tokens, key in missing.items():
            cache.put(key, fresh[tokens])
    features = (fresh[tuple(p)] if found is None else found for p, found in zip(ids, made, strict=True))
    return TextFeatures(*features, prompts=Prompts(prompt, negative), encoder=handle)


def _encode(handle: Handle, tokenizer: Path, prompts: list[list[int]], listener: Listener) -> list[np.ndarray]:
    enter("text", handle)
    with bounded_cache():
        encoder = get_text_encoder(handle, listener)
        words, largest = encoder.config.vocab_size, max(map(max, prompts))
        if largest >= words:
            raise WeightsError(
                f"{tokenizer} makes token {largest} of the prompt, but the text encoder beside it knows {words}: "
                "the two are of different models, download the snapshot again."
            )
        listener.progress(Progress(phase="encoding the prompt", done=0, total=1))
        return encode_text(encoder, prompts, listener.check_cancelled)
