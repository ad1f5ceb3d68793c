"""SentencePiece models as tokenizers: the ids of the sentencepiece package, and no model that harms.

`data/spiece` holds two models that sentencepiece 0.2.3 trained on 32 sentences of our own, and the ids that it gives to
some texts, </s> added: those that must be the `same` here, and those known to be `different`. `bytes` falls back to
bytes, `plain` has a control piece <s> and a user-defined <mask>. Both have <pad> 0, </s> 1 and <unk> 2 as UMT5 has, and
a small normaliser of our own: full-width letters, ligatures, spaces and a few pairs of a letter and its accent.
"""

import json
import struct

import pytest
from support import DATA

from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.formats import spiece
from mlx_backend.weights.formats.spiece import tokenizer_of_spiece

hypothesis = pytest.importorskip("hypothesis")
integers, lists, tuples = (getattr(hypothesis.strategies, name) for name in ("integers", "lists", "tuples"))

FOLDER = DATA / "spiece"
MODELS = {name: (FOLDER / f"{name}.model").read_bytes() for name in ("bytes", "plain")}
IDS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in MODELS}
FUZZ = {"deadline": None, "max_examples": 800, "derandomize": True, "database": None}
TEXT = " Full－width　ﬁsh, ﬀ™ …\u00ad 🦙 e\u0301 か\u3099 </s> <0x41> ▁ \u0001 女孩"


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, value):
    """A field as protobuf writes it: a varint, a float or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=-1.0, kind=1):
    return field(1, field(1, text.encode()) + field(2, score) + (field(3, kind) if kind != 1 else b""))


def charsmap(units, replacements=b"a\0"):
    table = struct.pack(f"<{len(units)}I", *units)
    return settings(normaliser={2: struct.pack("<I", len(table)) + table + replacements})


def settings(trainer=(), normaliser=()):
    parts = [b"".join(field(*item) for item in dict(part).items()) for part in (trainer, normaliser)]
    return field(2, parts[0]) + field(3, parts[1])


PAD, END, UNKNOWN = piece("<pad>", 0.0, 3), piece("</s>", 0.0, 3), piece("<unk>", 0.0, 2)
START = PAD + END + UNKNOWN
WORDS = START + b"".join(map(piece, ("▁", "a", "b", "▁a", "▁b")))
NORMALISER = field(3, spiece._parts(MODELS["plain"])[spiece.NORMALISER][0])
SMALL = WORDS + settings({3: 1, 35: 0}) + NORMALISER


def refused(model, *words):
    with pytest.raises(WeightsError) as caught:
        tokenizer_of_spiece(model)
    message = str(caught.value)
    assert message.startswith("The SentencePiece model ") and all(word in message for word in words), message


def harmless(model):
    """A tokenizer that works, or WeightsError. The library's panics are no Exception, so nothing here hides one."""
    try:
        tokenizer = tokenizer_of_spiece(model)
    except WeightsError:
        return
    tokenizer.decode(tokenizer.encode(TEXT).ids)


@pytest.mark.parametrize("name", MODELS)
def test_the_ids_are_those_of_sentencepiece(name):
    tokenizer = tokenizer_of_spiece(MODELS[name])
    assert {text: tokenizer.encode(text).ids for text in IDS[name]["same"]} == IDS[name]["same"]


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        # The library normalises grapheme by grapheme and takes the first rule that fits, here Ａ to A.
        ("plain", "Ａ\u0301", "▁A </s>"),
        # It takes a grapheme of six bytes or more apart, so that no rule for the pair is found.
        ("bytes", "か\u3099", "▁ か <0xE3> <0x82> <0x99> </s>"),
        # sentencepiece never reads the name of a control or byte piece as that piece.
        ("bytes", "a girl</s>", "▁a ▁g ir l </s> </s>"),
        ("bytes", "<0x41>", "▁ <0x41> </s>"),
        # transformers strips all white space from the end, sentencepiece the space alone.
        ("plain", "the boats\u2028", "▁t he ▁bo at s </s>"),
        # Around an added piece the library starts anew, sentencepiece keeps the space before and adds none behind.
        ("plain", "the <mask> boats", "▁t he <mask> ▁bo at s </s>"),
        # Both paths have the same score: which sum is larger depends on rounding, float64 here and float32 there.
        ("plain", "eee网", "▁ e ee 网 </s>"),
    ],
)
def test_known_differences(name, text, tokens):
    encoding = tokenizer_of_spiece(MODELS[name]).encode(text)
    assert encoding.tokens == tokens.split()
    assert encoding.ids != IDS[name]["different"][text]


def test_bytes_are_decoded():
    text = "Ein Mädchen 🦙 龘 dances"
    tokenizer = tokenizer_of_spiece(MODELS["bytes"])
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_pieces_that_are_more_than_text():
    tokenizer = tokenizer_of_spiece(MODELS["plain"])
    added = {i: (token.content, token.special) for i, token in tokenizer.get_added_tokens_decoder().items()}
    special = {0: ("<pad>", True), 1: ("</s>", True), 2: ("<unk>", True), 3: ("<s>", True)}
    assert added == special | {4: ("<mask>", False)}


@pytest.mark.parametrize(
    ("text", "part", "tokens"),
    [
        (" a  b ", settings(), "▁a ▁b </s>"),
        (" a  b ", settings(normaliser={3: 0}), "a ▁b </s>"),
        (" a  b ", settings(normaliser={4: 0}), "▁ ▁a ▁ ▁b ▁ </s>"),
        (" a  b ", settings(normaliser={3: 0, 4: 0}), "▁a ▁ ▁b ▁ </s>"),
        ("a b", piece("▁a▁b", -0.1) + settings(), "▁a ▁b </s>"),
        ("a b", piece("▁a▁b", -0.1) + settings({22: 0}), "▁a▁b </s>"),
    ],
)
def test_spaces(text, part, tokens):
    assert tokenizer_of_spiece(WORDS + part).encode(text).tokens == tokens.split()


def test_what_a_model_may_leave_out_or_add():
    assert tokenizer_of_spiece(WORDS).encode("a c").tokens == ["▁a", "▁", "c", "</s>"]
    assert tokenizer_of_spiece(WORDS).encode("a c").ids == [6, 3, 2, 1]  # the unknown piece, not number 0
    extended = field(4, b"\x0a\x00") + WORDS + field(200, 1) + field(201, 1.0) + varint(202 << 3 | 1) + bytes(8)
    assert tokenizer_of_spiece(extended).encode("a").ids == [6, 1]
    split = WORDS + field(3, field(3, 1)) + field(3, field(4, 0)) + field(3, field(3, 0))  # merged, the last one wins
    assert tokenizer_of_spiece(split).encode(" a").tokens == ["▁a", "</s>"]


def test_unused_pieces_keep_their_ids_and_match_nothing():
    tokenizer = tokenizer_of_spiece(START + piece("▁a", -1000.0, 5) + b"".join(map(piece, ("▁", "a"))))
    assert tokenizer.encode("a").ids == [4, 5, 1]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (b"", ["0 pieces for unknown"]),
        (PAD + END, ["0 pieces for unknown"]),
        (START + piece("<unk2>", 0.0, 2), ["2 pieces for unknown"]),
        (PAD + UNKNOWN, ["no piece '</s>'"]),
        (START + piece("a") + piece("a"), ["same piece twice"]),
        (START + piece(""), ["piece 3"]),
        (START + piece("a", float("nan")), ["piece 3", "nan"]),
        (START + piece("a", float("-inf")), ["piece 3", "inf"]),
        (START + piece("a", kind=7), ["piece 3", "type 7"]),
        (START + piece("a" * 1025), ["1025 bytes"]),
        (START + field(1, field(1, b"\xff")), ["piece 3", "UTF-8"]),
        (START + field(1, field(1, 1)), ["field 1 of piece 3", "wire type 0"]),
        (START + field(1, field(2, 1)), ["field 2 of piece 3", "wire type 0"]),
        (START + field(1, 5), ["field 1", "wire type 0"]),
        (START + b"\x0b\x0c", ["wire type 3"]),  # a group, which may nest
        (START + b"\x00\x00", ["without a number"]),
        (START + b"\x80" * 11, ["does not end"]),
        (START + b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ["within a field of 18446744073709551615 bytes"]),
        (WORDS + settings({3: 2}), ["BPE"]),
        (WORDS + settings({3: 4}), ["character"]),
        (WORDS + settings({3: 9}), ["type 9"]),
        (WORDS + settings({24: 1}), ["treat_whitespace_as_suffix"]),
        (WORDS + settings(normaliser={5: 0}), ["escape_whitespaces"]),
        (WORDS + settings(normaliser={2: 1}), ["field 2 of the normaliser's part"]),
        (WORDS + settings(normaliser={2: b"\x04"}), ["character map", "1 bytes"]),
        (WORDS + settings(normaliser={2: b"\x05\0\0\0aaaaaaa"}), ["table of 5"]),
        (WORDS + settings(normaliser={2: b"\xfc\0\0\0aaaa"}), ["table of 252"]),
        (WORDS + charsmap([0] * 255), ["link"]),
        (WORDS + charsmap([0x7FFFFFFF] + [0] * 255), ["link"]),
        (WORDS + charsmap([0xFFFFFFFF] + [0] * 255), ["link"]),
        (WORDS + charsmap([0x100] + [0] * 255, b""), ["replacement"]),
        (WORDS + charsmap([0x100 | 5 << 10] + [0] * 4 + [0x80000001] * 251, "ä".encode()), ["replacement"]),
        (WORDS + charsmap([0] * 256, b"\xff"), ["UTF-8"]),
        (WORDS + charsmap([0] * 256, b"a" * 257), ["256 bytes"]),
    ],
)
def test_refused(model, words):
    refused(model, *words)


@pytest.mark.parametrize(
    ("limit", "value", "word"),
    [
        ("MAX_BYTES", 10, "at most"),
        ("MAX_FIELDS", 7, "more than 7 fields"),
        ("MAX_TEXT_BYTES", 20, "together"),
        ("MAX_ADDED", 2, "control and user-defined"),
    ],
)
def test_limits(monkeypatch, limit, value, word):
    monkeypatch.setattr(spiece, limit, value)
    refused(WORDS, word)


def test_truncated_models():
    for length in range(len(SMALL)):
        harmless(SMALL[:length])
    refused(SMALL[:-1], "the file ends at byte")
    assert tokenizer_of_spiece(SMALL).encode("ａ　b").tokens == ["▁a", "▁b", "</s>"]


@hypothesis.settings(**FUZZ)
@hypothesis.given(changes=lists(tuples(integers(0, len(SMALL) - 1), integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(changes):
    model = bytearray(SMALL)
    for at, byte in changes:
        model[at] = byte
    harmless(bytes(model))


@hypothesis.settings(**FUZZ)
@hypothesis.given(start=integers(0, len(SMALL)), length=integers(1, 40), target=integers(0, len(SMALL)))
def test_moved_bytes(start, length, target):
    kept = SMALL[:start] + SMALL[start + length :]
    harmless(kept[:target] + SMALL[start : start + length] + kept[target:])
