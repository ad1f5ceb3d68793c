"""From latents to frames."""

from __future__ import annotations

from comfy_api.latest import io

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.tiling import Tiling
from ..mlx_backend.runtime.device import require_mlx
from . import host, sockets
from .neighbour import neighbour
from .tensors import from_latent, to_image


class WanVaeTiledDecode(io.ComfyNode):
    """Wan's causal VAE, one latent frame at a time, in tiles if wanted; joins the sampler's segments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="WanVaeTiledDecode",
            display_name="Wan VAE Decode (MLX)",
            category=sockets.CATEGORY,
            description="Decodes the sampler's latent to frames and joins its segments. Memory does not grow with the "
            "length; tiles reduce it for large pictures and change nothing in them.",
            search_aliases=["scail", "vae decode", "tiled decode", "wan"],
            inputs=[
                sockets.Vae.Input("vae", tooltip="From Load SCAIL-2."),
                io.Latent.Input("latent", tooltip="From SCAIL-2 Sampler, or any Wan 2.1 latent of one clip."),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=32,
                    tooltip="Decode in square tiles of this many pixels (128 or more): the same picture with less "
                    "memory and in more time. 0: whole frames where they fit, else the largest tiles that do.",
                ),
                io.Int.Input(
                    "tile_overlap",
                    default=64,
                    min=8,
                    max=512,
                    step=8,
                    tooltip="Pixels of surroundings that neighbouring tiles share; at most half a tile. Less than 112 "
                    "is raised to 112, which the network sees; more only costs time.",
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output("images", display_name="images")],
        )

    @classmethod
    def validate_inputs(cls, tile_size: int | None, tile_overlap: int | None) -> bool | str:
        """Refuse tiles that cannot be cut before anything is queued."""
        try:
            if tile_size and tile_overlap is not None:
                Tiling(tile_size, tile_overlap)
        except RequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, vae, latent: dict, tile_size: int, tile_overlap: int) -> io.NodeOutput:
        """Return the frames as IMAGE, as many as the driving video had."""
        require_mlx()
        from ..mlx_backend.pipelines.decode import decode_latents

        tiling = Tiling(tile_size, tile_overlap) if tile_size else None
        with neighbour().at_work():
            frames = decode_latents(vae, from_latent(latent), tiling, host.HostListener())
        return io.NodeOutput(to_image(frames))
