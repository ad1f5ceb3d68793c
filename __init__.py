"""ComfyUI's entry point to the pack: registers the model folder and lists the nodes. Nothing of MLX happens here."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES
from .nodes.caches import add_routes
from .nodes.host import offer_samples, register_model_folder
from .nodes.neighbour import neighbour

WEB_DIRECTORY = "./web"


class Scail2MLXExtension(ComfyExtension):
    """The nodes of this pack."""

    async def on_load(self) -> None:
        """Tell ComfyUI where snapshots lie and whom to ask for memory and caches; put samples where it finds them."""
        register_model_folder()
        offer_samples()
        neighbour().move_in()
        add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the node classes."""
        return list(NODES)


async def comfy_entrypoint() -> ComfyExtension:
    """Called once by ComfyUI."""
    return Scail2MLXExtension()
