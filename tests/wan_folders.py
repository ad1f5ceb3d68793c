"""The tiny models of the Wan goldens as folders, in the layouts that people have; each is made once."""

import importlib.util
from functools import cache
from pathlib import Path

from wan_weights import WAN


@cache
def _layouts():
    """Return the goldens' own program, which imports its neighbour by name."""
    import sys

    sys.path.insert(0, str(WAN))
    try:
        spec = importlib.util.spec_from_file_location("wan_layouts", WAN / "layouts.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(WAN))
    return module


class Folders:
    """Makes folders below one."""

    def __init__(self, root: Path):
        self._root = root

    def __call__(self, layout: str, kind: str, *, bits: int | None = None, every: bool = False) -> Path:
        """Return the folder of a model, such as ("original", "t2v")."""
        root = self._root / f"{layout}-{bits}-{every}"
        if not (root / kind).is_dir():
            how = {"bits": bits, "every": every, "hollow": layout == "mlx-gen" and bits is None}
            _layouts().make(root, layout, [kind], WAN, **{name: value for name, value in how.items() if value})
        return root / kind
