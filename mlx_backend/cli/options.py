"""Options of the command line made from the table of settings, and what they mean for the model in use."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..interface.settings import ROWS
from ..interface.variants import Defaults
from ..members import member_named
from ..members.scail2 import MEMBER
from ..weights.checkpoints.snapshot import Snapshot, identify_file

Add = Callable[..., Any]  # ArgumentParser.add_argument


def option(add: Add, name: str, flag: str = "", other: str = "") -> None:
    """Add a setting; what is not given is None, and then the preset's or the model's. Help tells SCAIL-2's defaults.

    `other` is a second name of the option. A setting that is true or false is a flag for what it is not by default.
    """
    row = ROWS[name]
    default = row.value(MEMBER.defaults)
    how: dict[str, Any] = {"dest": name, "help": row.help.format(default=default)}
    if isinstance(default, bool):
        how |= {"action": "store_const", "const": not default}
    elif row.choices:
        how["metavar"] = "|".join(row.choices)
    else:
        how |= {"type": float if default is None else type(default), "metavar": row.metavar or None}
    add(*filter(None, (flag or f"--{name.replace('_', '-')}", other)), **how)


def given_by(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, and None for the others that were offered."""
    return {name: getattr(chosen, name) for name in ROWS if hasattr(chosen, name)}


def defaults_of(snapshot: Snapshot) -> Defaults:
    """Return what a run of a snapshot's model starts from. Raises WeightsError."""
    member = snapshot.member or identify_file(snapshot.path("dit"))[1].member
    return (MEMBER if member is None else member_named(member)).defaults
