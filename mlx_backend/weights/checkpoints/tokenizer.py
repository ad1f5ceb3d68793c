"""Tokenizers, from tokenizer.json, from a SentencePiece model, or from the text encoder file that embeds one."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from ...interface.errors import WeightsError
from ...interface.variants import END_TOKEN
from ..formats.sources import open_tensors
from ..formats.spiece import tokenizer_of_spiece
from .snapshot import EMBEDDED_TOKENIZER, TENSOR_SUFFIXES


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer. Raises WeightsError for a file that holds none, or that of another model."""
    try:
        tokenizer = _read(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # the library raises plain Exception
        raise WeightsError(f"{path} is not a tokenizer file ({error}): download it again.") from error
    if tokenizer.token_to_id("</s>") != END_TOKEN:
        raise WeightsError(
            f"{path} is the tokenizer of another model: its token {END_TOKEN} is "
            f"'{tokenizer.id_to_token(END_TOKEN)}', but that of UMT5 is '</s>'; "
            "download the snapshot's own tokenizer.json."
        )
    return tokenizer


def _read(path: Path) -> Tokenizer:
    if path.suffix in TENSOR_SUFFIXES:
        return tokenizer_of_spiece(open_tensors(path).read(EMBEDDED_TOKENIZER).tobytes())
    if path.suffix == ".model":
        return tokenizer_of_spiece(path.read_bytes())
    return Tokenizer.from_file(str(path))
