"""Prompts to features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditioning.text import encode_text, tokenise
from ..runtime.memory import bounded_cache
from ..spec.errors import WeightsError
from ..spec.events import Listener
from ..weights.tokenizer import load_tokenizer
from .store import Handle, enter, get_text_encoder


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """Features [L, dim], float32, of the prompt and of the negative prompt, L up to 512."""

    positive: np.ndarray
    negative: np.ndarray


def encode_prompts(handle: Handle, prompt: str, negative: str, listener: Listener) -> TextFeatures:
    """Clean, tokenise and encode both prompts. An empty one is a single end token, as upstream has it."""
    path = handle.store.snapshot.tokenizer
    tokenizer = load_tokenizer(path)
    ids = [tokenise(tokenizer, prompt, listener), tokenise(tokenizer, negative, listener, "negative prompt")]
    enter("text", handle)
    with bounded_cache():
        encoder = get_text_encoder(handle, listener)
        words = encoder.config.vocab_size
        if max(map(max, ids)) >= words:
            raise WeightsError(
                f"{path} makes token {max(map(max, ids))} of the prompt, but the text encoder beside it knows {words}: "
                "the two are of different models, download the snapshot again."
            )
        prompts = ids[:1] if ids[1] == ids[0] else ids
        features = encode_text(encoder, prompts, listener.check_cancelled)
        return TextFeatures(features[0], features[-1])
