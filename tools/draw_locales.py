"""Writes the English texts that translations start from: `python -m tools.draw_locales`.

They are copied from the nodes' schemas and the page's script, so that a text is written in one place only. ComfyUI
reads `locales/<language>/{main,nodeDefs,commands}.json`; the other languages are written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.pack import ROOT, load_pack

LOCALES = ROOT / "locales"
ENGLISH = "en"
FILES = ("main", "nodeDefs", "commands")
CACHES_SCRIPT = ROOT / "web" / "js" / "caches.js"

Key = tuple[str, ...]
"""The file and the names in it that lead to a text, such as ("nodeDefs", "Scail2Sampler", "display_name")."""


def english() -> dict[str, dict[str, Any]]:
    """Return the content of each file of the English locale by the file's name."""
    schemas = [cls.GET_SCHEMA() for cls in load_pack().NODES]
    menu, labels = _menu()
    return {
        "main": {
            "nodeCategories": {schema.category: schema.category for schema in schemas},
            "menuLabels": {label: label for label in (menu, *labels.values())},
        },
        "nodeDefs": {schema.node_id: _node(schema) for schema in schemas},
        "commands": {command: {"label": label} for command, label in labels.items()},
    }


def read(language: str, folder: Path = LOCALES) -> dict[str, dict[str, Any]]:
    """Return what the language's files hold; a file that is not there holds nothing."""
    paths = {name: folder / language / f"{name}.json" for name in FILES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def write(language: str, content: dict[str, dict[str, Any]], folder: Path = LOCALES) -> None:
    """Write the language's files."""
    (folder / language).mkdir(parents=True, exist_ok=True)
    for name, entries in content.items():
        text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
        (folder / language / f"{name}.json").write_text(text, encoding="utf-8")


def texts(content: dict[str, Any]) -> dict[Key, Any]:
    """Return all texts by their keys."""
    return dict(_walk(content, ()))


def draw(folder: Path = LOCALES) -> list[str]:
    """Write English, and drop from the other languages what translates a text that has changed or is gone.

    Returns what is to be translated, as "language: file.name.name".
    """
    now, before = english(), texts(read(ENGLISH, folder))
    write(ENGLISH, now, folder)
    wanted = texts(now)
    missing = []
    for language in languages(folder):
        held = texts(read(language, folder))
        kept = {key: held[key] for key, text in wanted.items() if key in held and before.get(key, text) == text}
        if list(kept.items()) != list(held.items()):
            write(language, _nested(kept), folder)
        missing += [f"{language}: {'.'.join(key)}" for key in wanted if key not in kept]
    return missing


def languages(folder: Path = LOCALES) -> list[str]:
    """Return the languages that are translated into."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != ENGLISH)


def _node(schema: Any) -> dict[str, Any]:
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {entry.id: _named(entry) for entry in schema.inputs},
        "outputs": {str(index): _named(entry) for index, entry in enumerate(schema.outputs)},
    }


def _named(entry: Any) -> dict[str, str]:
    name = {"name": entry.display_name or entry.id}
    return name | {"tooltip": entry.tooltip} if entry.tooltip else name


def _menu() -> tuple[str, dict[str, str]]:
    """Return the menu's label, and the labels of its commands by id; the page writes a dot in an id as "_" in keys."""
    script = CACHES_SCRIPT.read_text(encoding="utf-8")
    labels = dict(re.findall(r'^  (\w+): \{\s*label: "([^"]+)"', script, re.MULTILINE))
    menu = re.search(r'path: \["([^"]+)"\]', script)
    prefix = re.search(r"id: `([\w.]+)\$\{name\}`", script)
    if not (labels and menu and prefix):
        raise ValueError(f"{CACHES_SCRIPT.name} has no menu with labelled commands where one is expected.")
    return menu[1], {f"{prefix[1]}{name}".replace(".", "_"): label for name, label in labels.items()}


def _walk(entries: dict[str, Any], above: Key) -> Iterator[tuple[Key, Any]]:
    for name, entry in entries.items():
        if isinstance(entry, dict):
            yield from _walk(entry, (*above, name))
        else:
            yield (*above, name), entry


def _nested(flat: dict[Key, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {name: {} for name in FILES}
    for key, text in flat.items():
        entries = content
        for name in key[:-1]:
            entries = entries.setdefault(name, {})
        entries[key[-1]] = text
    return content


def main() -> None:
    """Write English and name what is to be translated."""
    missing = draw()
    sys.stdout.write("\n".join(["To be translated:", *missing] if missing else ["Everything is translated."]) + "\n")


if __name__ == "__main__":
    main()
