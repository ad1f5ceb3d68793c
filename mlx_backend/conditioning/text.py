"""Prompts: cleaned and cut into tokens as upstream does. Source: `wan/modules/tokenizers.py` of Wan-Video/Wan2.1."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import ftfy
import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from ..interface.events import Listener
from ..interface.variants import END_TOKEN, MAX_TEXT_TOKENS
from ..models.umt5 import UMT5Encoder


def clean(prompt: str) -> str:
    """Mend broken Unicode, resolve HTML entities (twice) and collapse white space."""
    prompt = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", prompt).strip()


def tokenise(tokenizer: Tokenizer, prompt: str, listener: Listener, name: str = "prompt") -> list[int]:
    """Return the ids of a prompt, `</s>` included; at most 512, and a warning with the count when it was longer.

    `name` is what the warning calls the prompt.
    """
    ids = [i for i in tokenizer.encode(clean(prompt)).ids if i != END_TOKEN]
    if len(ids) >= MAX_TEXT_TOKENS:
        listener.warn(
            f"The {name} has {len(ids) + 1} tokens, but the model reads {MAX_TEXT_TOKENS}: "
            "the end of it is not seen, shorten it."
        )
    return [*ids[: MAX_TEXT_TOKENS - 1], END_TOKEN]


def encode_text(
    encoder: UMT5Encoder, prompts: list[list[int]], check_cancelled: Callable[[], None]
) -> list[np.ndarray]:
    """Return the features [L, dim], float32, of each prompt's ids; all prompts in one run of the encoder."""
    encoded = encoder.encode([mx.array(ids) for ids in prompts], check_cancelled)
    return [np.array(features.astype(mx.float32)) for features in encoded]
