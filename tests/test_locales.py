"""The page's texts: English is what the schemas say, and the other languages say all of it."""

import json
import re
from collections import defaultdict

import pytest
from support import ROOT

from tools.draw_locales import ENGLISH, FILES, LOCALES, draw, english, languages, read, texts, write

LANGUAGES = ("ja", "zh")
OF_THE_LANGUAGE = {"ja": re.compile("[\u3040-\u30ff\u4e00-\u9fff]"), "zh": re.compile("[\u4e00-\u9fff]")}
NAMES = {
    "SCAIL-2": "the model",
    "SCAIL-2 MLX": "the pack",
    "SCAIL-2 LoRA (MLX)": "the model and a kind of file",
    "lora": "a kind of file",
    "dit": "a kind of network",
    "vae": "a kind of network",
    "cfg": "written so in ComfyUI's own Japanese and Chinese",
    "shift": "what people who set it call it in every language",
}
"""Texts that need no letter of another language, and why."""

NUMBER = re.compile(r"\d+(?:\.\d+)?")
OPTION = re.compile(r"(?:^|\. )(\w[\w+]*): ")
"""A value of a choice where a tooltip explains it: "fit: as large as goes into the box"."""


@pytest.fixture(scope="module")
def source():
    return texts(english())


@pytest.fixture(scope="module", params=LANGUAGES)
def translated(request):
    return request.param, texts(read(request.param))


def test_english_is_what_the_schemas_say():
    assert read(ENGLISH) == english(), "run python -m tools.draw_locales"


def test_every_node_has_its_texts(source, nodes):
    for name in nodes:
        assert source["nodeDefs", name, "display_name"]
        assert source["nodeDefs", name, "description"]
    assert all(text.strip() for text in source.values())


def test_the_menu_and_its_commands_are_those_of_the_page(source):
    script = (ROOT / "web" / "js" / "caches.js").read_text(encoding="utf-8")
    commands = {key[1]: text for key, text in source.items() if key[0] == "commands"}
    assert sorted(commands) == ["scail2_mlx_clear_conditioning", "scail2_mlx_clear_segments"]
    for label in commands.values():
        assert f'label: "{label}"' in script
        assert source["main", "menuLabels", label] == label


def test_nothing_is_syntax_to_the_page(source):
    """The page takes braces, bars and at signs in names and descriptions for its own message syntax."""
    everything = source | texts({language: read(language) for language in LANGUAGES})
    assert not [key for key, text in everything.items() if set(text) & set("{}|@")]


def test_the_languages_are_those_tested():
    assert languages() == list(LANGUAGES)
    assert not [line for line in (ROOT / ".comfyignore").read_text().split() if "locales" in line]


def test_a_language_has_the_keys_of_english(source, translated):
    language, held = translated
    assert list(held) == list(source), f"run python -m tools.draw_locales, then complete locales/{language}"


def test_no_text_is_empty_or_left_in_english(source, translated):
    language, held = translated
    for key, text in held.items():
        if source[key] not in NAMES:
            assert OF_THE_LANGUAGE[language].search(text), f"{language}: {key} is not translated: {text}"
        assert text.strip()


def test_numbers_are_kept(source, translated):
    language, held = translated
    for key, text in held.items():
        assert sorted(NUMBER.findall(text)) == sorted(NUMBER.findall(source[key])), f"{language}: {key}"


def test_values_of_choices_are_kept(source, translated):
    """A choice shows its values as they are, so what explains one must name it as it is."""
    language, held = translated
    explained = {key: OPTION.findall(text) for key, text in source.items() if key[-1] == "tooltip"}
    assert sum(map(len, explained.values())) > 20
    for key, options in explained.items():
        for option in options:
            if option.isascii() and option[0].islower():
                assert f"{option}：" in held[key], f"{language}: {key} does not explain {option}"


def test_one_english_text_is_one_text(source, translated):
    language, held = translated
    by_text = defaultdict(set)
    for key, text in held.items():
        by_text[key[-1] == "name", source[key]].add(text)
    assert not [both for both in by_text.items() if len(both[1]) > 1], language


def test_files_are_what_comfyui_reads():
    for language in (ENGLISH, *LANGUAGES):
        found = sorted(path.name for path in (LOCALES / language).iterdir())
        assert found == sorted(f"{name}.json" for name in FILES)


def test_a_changed_text_loses_its_translations(tmp_path):
    content = english()
    title, other = (("nodeDefs", "Scail2Sampler", part) for part in ("display_name", "description"))
    for language in (ENGLISH, "xx"):
        write(language, content, tmp_path)
    assert draw(tmp_path) == []

    stale = json.loads(json.dumps(content))
    stale["nodeDefs"]["Scail2Sampler"]["display_name"] = "What it was called before"
    stale["nodeDefs"]["Gone"] = {"display_name": "A node that is no more"}
    write(ENGLISH, stale, tmp_path)
    write("xx", stale, tmp_path)
    assert draw(tmp_path) == ["xx: nodeDefs.Scail2Sampler.display_name"]
    assert read(ENGLISH, tmp_path) == content
    held = texts(read("xx", tmp_path))
    assert title not in held
    assert held[other] == content["nodeDefs"]["Scail2Sampler"]["description"]
    assert "Gone" not in {key[1] for key in held}
