"""The small model that comes with the pack, for what needs no download, and the settings that it was judged with."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parents[2] / "assets"
SMALL_MODEL = ASSETS / "puppets"
SMALL_SETTINGS = {"steps": 12, "shift": 5.0}
