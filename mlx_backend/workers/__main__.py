"""`python -m mlx_backend.workers FD PATH RANK COUNT`: the child. Only workers/worker.py starts it."""

import os
import sys

from ..runtime.device import require_mlx

if __name__ == "__main__":
    number, path, rank, count = sys.argv[1:]
    # Behind its own: where the parent's packages lie, without a folder of ComfyUI's or a pack's before a library.
    sys.path += [folder for folder in path.split(os.pathsep) if folder and folder not in sys.path]
    require_mlx()
    from .child import serve

    serve(int(number), int(rank), int(count))
