"""The models that run here: a file each (a folder where one brings parts of its own), found by being here.

A row is data and needs no MLX; what it does imports its parts when it is called.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from ..interface.sizes import WanConfig
from .member import Member

if TYPE_CHECKING:
    from ..models.wan import WanModel


@cache
def members() -> tuple[Member, ...]:
    """Return every member: the `MEMBER` of each module of this package that has one, by name of the module."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return tuple(module.MEMBER for module in modules if hasattr(module, "MEMBER"))


def member_named(name: str) -> Member:
    """Return the member of a name."""
    return next(row for row in members() if row.name == name)


def network_of(config: WanConfig) -> WanModel:
    """Return the transformer that a configuration is of, without weights: the member's that has this kind of one."""
    owner = next((type(row) for row in members() if row.config_type is type(config)), Member)
    return owner.network(config, None)


def kinds() -> tuple[str, ...]:
    """Return the names of the members that have relatives: what a user may have to say of files that look alike."""
    return tuple(row.name for row in members() if row.family)


def titles() -> str:
    """Return what all members are called, for a sentence."""
    return " or ".join(dict.fromkeys(row.family or row.title for row in members()))
