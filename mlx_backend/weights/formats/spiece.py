"""SentencePiece Unigram models as tokenizers, without the sentencepiece and protobuf packages.

ComfyUI's umt5_xxl_*.safetensors embed such a model as bytes, upstream folders bring it as spiece.model. Sources:
`sentencepiece_model.proto`, `normalizer.cc` and `unigram_model.cc` of google/sentencepiece; the tokenizer takes the
form that SpmConverter and T5Converter of `convert_slow_tokenizer.py` in huggingface/transformers give it. UMT5's model
has 256,000 pieces: <pad> 0, </s> 1, <unk> 2, one for each byte, but no <extra_id_N>; its published tokenizer.json adds
300 of those behind the last, but no prompt holds any.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ...interface.errors import WeightsError

MAX_BYTES = 64 << 20  # 256,000 pieces take about 5 MB
MAX_FIELDS = 1_000_000  # of one message: a piece is a field of the file
MAX_PIECE_BYTES = 1024  # the library's tree is as deep as the longest piece, and its destructor recursive
MAX_TEXT_BYTES = 8 << 20  # of all pieces together: the tree takes up to 350 bytes of memory for each
MAX_ADDED = 10_000
MAX_REPLACEMENT = 256  # bytes that the normaliser may write for one character; Unicode's longest has 33

VARINT, WIDE, DELIMITED, NARROW = 0, 1, 2, 5
WIDTHS = {WIDE: 8, NARROW: 4}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}
SPACE, END = "▁", "</s>"

# Field numbers of the messages that are read, and the wire type that each must have.
PIECES, TRAINER, NORMALISER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
PIECE_FIELDS = {TEXT: DELIMITED, SCORE: NARROW, KIND: VARINT}
MODEL_TYPE, SPLIT_BY_SPACE, SPACE_AS_SUFFIX, BYTE_FALLBACK = 3, 22, 24, 35
TRAINER_FIELDS = dict.fromkeys((MODEL_TYPE, SPLIT_BY_SPACE, SPACE_AS_SUFFIX, BYTE_FALLBACK), VARINT)
CHARSMAP, DUMMY_PREFIX, REMOVE_EXTRA_SPACES, ESCAPE_SPACES = 2, 3, 4, 5
NORMALISER_FIELDS = {CHARSMAP: DELIMITED, DUMMY_PREFIX: VARINT, REMOVE_EXTRA_SPACES: VARINT, ESCAPE_SPACES: VARINT}


def tokenizer_of_spiece(model: bytes) -> Tokenizer:
    """Return the tokenizer of a serialised SentencePiece model; it appends `</s>` to what it encodes.

    It gives the ids of the sentencepiece package, with these exceptions, which are those of transformers: the names of
    control, unknown and byte pieces within a text are read as these; where a piece is added or user-defined, the text
    behind it starts a word; a grapheme of several characters is normalised by its first rule instead of its longest,
    and one of six bytes or more character by character; white space of any kind goes from the end of a text; and paths
    whose scores differ by less than float32 resolves may be chosen differently. Raises WeightsError.
    """
    if len(model) > MAX_BYTES:
        raise _refused(f"has {len(model) >> 20} MB, at most {MAX_BYTES >> 20} are read")
    parts = _parts(bytes(model))
    # Joined messages are merged messages; what they leave out has the default of the .proto file.
    trainer = _singular(b"".join(parts[TRAINER]), TRAINER_FIELDS, "the trainer's part")
    normaliser = _singular(b"".join(parts[NORMALISER]), NORMALISER_FIELDS, "the normaliser's part")
    _check_supported(trainer, normaliser)
    vocabulary = _Vocabulary.of(parts[PIECES])
    fallback, split = bool(trainer.get(BYTE_FALLBACK, 0)), bool(trainer.get(SPLIT_BY_SPACE, 1))
    scheme = "always" if normaliser.get(DUMMY_PREFIX, 1) else "never"

    tokenizer = Tokenizer(models.Unigram(vocabulary.scored, unk_id=vocabulary.unknown, byte_fallback=fallback))
    tokenizer.normalizer = _normaliser(normaliser)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=split)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, vocabulary.end)]
    )
    decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoder]) if fallback else decoder
    tokenizer.add_tokens(vocabulary.added)
    return tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class _Vocabulary:
    """The pieces with their scores, by id, and which of them are more than text."""

    scored: list[tuple[str, float]]
    unknown: int
    end: int
    added: list[AddedToken]

    @classmethod
    def of(cls, messages: list[bytes]) -> _Vocabulary:
        """Read the piece messages. Raises WeightsError."""
        pieces = [_piece(message, i) for i, message in enumerate(messages)]
        ids = {text: i for i, (text, _, _) in enumerate(pieces)}
        if len(ids) < len(pieces):
            raise _damaged("it has the same piece twice")
        if sum(len(text.encode()) for text in ids) > MAX_TEXT_BYTES:
            raise _refused(f"has pieces of more than {MAX_TEXT_BYTES >> 20} MB together")
        # The number in the trainer's settings is left out by writers that keep only what the library asks for.
        unknown = [i for i, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN]
        if len(unknown) != 1:
            raise _damaged(f"it has {len(unknown)} pieces for unknown text instead of one")
        if END not in ids:
            raise _refused(f"has no piece '{END}', which ends every text of UMT5")
        marked = [(text, kind) for text, _, kind in pieces if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
        if len(marked) > MAX_ADDED:
            raise _refused(f"has {len(marked)} control and user-defined pieces, at most {MAX_ADDED} are read")
        added = [AddedToken(text, normalized=False, special=kind != USER_DEFINED) for text, kind in marked]
        return cls([_scored(*piece) for piece in pieces], unknown[0], ids[END], added)


def _piece(message: bytes, index: int) -> tuple[str, float, int]:
    fields = _singular(message, PIECE_FIELDS, f"piece {index}")
    try:
        text = fields.get(TEXT, b"").decode()
    except UnicodeDecodeError as error:
        raise _damaged(f"piece {index} is not UTF-8") from error
    score = struct.unpack("<f", fields.get(SCORE, bytes(4)))[0]
    kind = fields.get(KIND, NORMAL)
    if not text or not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise _damaged(f"piece {index} is '{text[:40]}' with score {score} and type {kind}")
    if len(fields[TEXT]) > MAX_PIECE_BYTES:
        raise _refused(f"has a piece of {len(fields[TEXT])} bytes ({index}), at most {MAX_PIECE_BYTES} are read")
    return text, score, kind


def _scored(text: str, score: float, kind: int) -> tuple[str, float]:
    """Keep the id of an unused piece, but match no text with it: spaces never reach the model."""
    return (f" {text}", 0.0) if kind == UNUSED else (text, score)


def _check_supported(trainer: dict, normaliser: dict) -> None:
    kind = trainer.get(MODEL_TYPE, 1)
    if kind != 1:
        raise _refused(f"is of type {MODEL_TYPES.get(kind, kind)}, but UMT5's is of type Unigram")
    if trainer.get(SPACE_AS_SUFFIX, 0):
        raise _refused("marks spaces behind the words (treat_whitespace_as_suffix), but UMT5's marks them before")
    if not normaliser.get(ESCAPE_SPACES, 1):
        raise _refused("keeps spaces as they are (escape_whitespaces off), but UMT5's writes them as '▁'")


def _normaliser(options: dict) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if charsmap := options.get(CHARSMAP):
        _check_charsmap(charsmap)
        steps.append(normalizers.Precompiled(charsmap))
    prefix = bool(options.get(DUMMY_PREFIX, 1))
    if options.get(REMOVE_EXTRA_SPACES, 1):
        steps += [normalizers.Strip(left=not prefix, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    elif prefix:
        steps.append(normalizers.Prepend(SPACE))  # Metaspace adds none where the text starts with a space of its own
    return normalizers.Sequence(steps)


def _check_charsmap(charsmap: bytes) -> None:
    """Follow every link of the normaliser's double array: the library panics at a wrong one, which is no Exception.

    A charsmap is the array's size in bytes, the array and the replacements, each with a zero byte behind it. A unit
    holds a byte (bits 0-7), whether a value follows (8) and the distance to its children (10-30, in blocks of 256 where
    bit 9 is set); bit 31 marks a value, which is the place of a replacement.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if not size or size % 4 or size > len(charsmap) - 4:
        raise _damaged(f"its character map of {len(charsmap)} bytes claims a table of {size}")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    replacements = charsmap[4 + size :]
    try:
        replacements.decode()
    except UnicodeDecodeError as error:
        raise _damaged("its character map holds text that is not UTF-8") from error
    followed = units >> 31 == 0
    followed[0] = True
    children = (np.arange(len(units)) ^ (units >> 10 << (units >> 6 & 8)))[followed]
    if np.any(children | 0xFF >= len(units)):
        raise _damaged("its character map has a link that leads out of it")
    places = units[children[units[followed] >> 8 & 1 == 1]] & 0x7FFFFFFF
    text = np.frombuffer(replacements, np.uint8)
    if np.any(places >= len(text)) or np.any(text[places] & 0xC0 == 0x80):
        raise _damaged("its character map has a replacement that is not there")
    if max(map(len, replacements.split(b"\0"))) > MAX_REPLACEMENT:
        raise _refused(f"replaces a character by more than {MAX_REPLACEMENT} bytes")


def _parts(model: bytes) -> dict[int, list[bytes]]:
    parts: dict[int, list[bytes]] = {PIECES: [], TRAINER: [], NORMALISER: []}
    for number, wire, value in _fields(model, "the file"):
        if number in parts:
            if wire != DELIMITED:
                raise _damaged(f"its field {number} has wire type {wire} instead of {DELIMITED}")
            parts[number].append(value)
    return parts


def _singular(message: bytes, wires: dict[int, int], where: str) -> dict:
    """Return those fields of a message that `wires` names; the last one wins, as protobuf has it."""
    found = {}
    for number, wire, value in _fields(message, where):
        if number in wires:
            if wire != wires[number]:
                raise _damaged(f"field {number} of {where} has wire type {wire} instead of {wires[number]}")
            found[number] = value
    return found


def _fields(message: bytes, where: str) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and value of every field: an integer for a varint, bytes for the others."""
    at, end, count = 0, len(message), 0
    while at < end:
        if (count := count + 1) > MAX_FIELDS:
            raise _damaged(f"{where} has more than {MAX_FIELDS} fields")
        tag, at = _varint(message, at, where)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at, where)
        elif wire == DELIMITED or wire in WIDTHS:
            size, at = _varint(message, at, where) if wire == DELIMITED else (WIDTHS[wire], at)
            if size > end - at:
                raise _damaged(f"{where} ends at byte {end}, within a field of {size} bytes that starts at {at}")
            value, at = message[at : at + size], at + size
        else:
            raise _damaged(f"{where} has a field of wire type {wire} before byte {at}")
        if not number:
            raise _damaged(f"{where} has a field without a number before byte {at}")
        yield number, wire, value


def _varint(message: bytes, at: int, where: str) -> tuple[int, int]:
    if at < len(message) and message[at] < 0x80:  # nearly all; four for each piece
        return message[at], at + 1
    value = 0
    for shift, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise _damaged(f"{where} has a number at byte {at} that does not end")


def _damaged(what: str) -> WeightsError:
    return WeightsError(f"The SentencePiece model is damaged: {what}; download the file that it came with again.")


def _refused(what: str) -> WeightsError:
    return WeightsError(f"The SentencePiece model {what}: choose the text encoder or spiece.model of UMT5-XXL.")
