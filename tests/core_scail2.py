"""Runs ComfyUI's own SCAIL-2 model and sampler on the tiny weights; test_scail2_core.py starts it.

It runs in ComfyUI's Python and folder. Arguments: the DiT's safetensors file, the VAE's (as ComfyUI reads it), a file
of cases as JSON, and the folder to write to. For each case: the conditioning and latent that WanSCAILToVideo made of
random pictures, what ComfyUI's euler on its "simple" grid made of them, and the rotations of the tokens of two
references, three frames and their driving frames in the case's mode.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

CLIP_TOKENS, TEXT_TOKENS = 257, 512


def core_model(path):
    """Return ComfyUI's model of the tiny sizes, with the tiny weights in float32."""
    import comfy.ldm.wan.model
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils
    import torch

    state = {name: tensor.float() for name, tensor in comfy.utils.load_torch_file(path).items()}
    sizes = {
        "dim": state["head.modulation"].shape[-1],
        "ffn_dim": state["blocks.0.ffn.0.weight"].shape[0],
        "freq_dim": state["time_embedding.0.weight"].shape[1],
        "text_dim": state["text_embedding.0.weight"].shape[1],
        "num_heads": state["head.modulation"].shape[-1] // 128,
        "num_layers": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
    }
    config = comfy.supported_models.WAN21_SCAIL2(
        {"image_model": "wan2.1", "model_type": "scail2", "in_dim": 20, "out_dim": 16, "dtype": torch.float32, **sizes}
    )
    model = config.get_model(state, "", "cpu")
    # ComfyUI takes CLIP's width for granted.
    clip_dim = state["img_emb.proj.0.weight"].shape[0]
    settings = {"operations": torch.nn, "device": "cpu", "dtype": torch.float32}
    model.diffusion_model.img_emb = comfy.ldm.wan.model.MLPProj(clip_dim, sizes["dim"], operation_settings=settings)
    model.diffusion_model.load_state_dict(state)
    model.diffusion_model.eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu), sizes["text_dim"], clip_dim


def conditioned(case, vae, text_dim, clip_dim):
    """Return positive, negative and latent of WanSCAILToVideo for random pictures and features."""
    import torch
    from comfy_extras.nodes_scail import WanSCAILToVideo

    random = torch.Generator().manual_seed(case["pictures"])

    def pictures(count, height, width):
        small = torch.rand((count, 3, height // 8, width // 8), generator=random)
        return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear").movedim(1, -1)

    def mask(count, height, width):
        colours = torch.tensor([(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
        cells = torch.randint(0, len(colours), (count, height // 16, width // 16), generator=random)
        return colours[cells].repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)

    texts = [[[torch.randn((1, TEXT_TOKENS, text_dim), generator=random), {}]] for _ in range(2)]
    tokens = torch.randn((2, CLIP_TOKENS, clip_dim), generator=random)
    size = (case["height"], case["width"])
    masked = case.get("masks", True)
    references = case.get("references", 1)
    given = {
        "pose_video": pictures(case["frames"], *size),
        "pose_video_mask": mask(case["frames"], *size) if masked else None,
        "reference_image": pictures(references, *size) if references else None,
        "reference_image_mask": mask(references, *size) if masked and references else None,
        "clip_vision_output": SimpleNamespace(penultimate_hidden_states=tokens) if case.get("clip", True) else None,
        "previous_frames": pictures(case["previous"], *size) if "previous" in case else None,
    }
    made = WanSCAILToVideo.execute(
        *texts,
        vae,
        width=case["width"],
        height=case["height"],
        length=case["length"],
        batch_size=case.get("batch", 1),
        pose_strength=case.get("strength", 1.0),
        pose_start=case.get("start", 0.0),
        pose_end=case.get("end", 1.0),
        video_frame_offset=case.get("offset", 0),
        previous_frame_count=5,
        replacement_mode=case["replacement"],
        **given,
    )
    return made.args[:3]


def rotations(patcher, case):
    """Return cos and sin of ComfyUI's rotation of every token, [tokens, lanes]."""
    import torch

    references, frames, height, width = 2, 3, 8, 12
    freqs = patcher.model.diffusion_model.rope_encode(
        references + frames,
        height,
        width,
        dtype=torch.float32,
        pose_latents=torch.zeros(1, 20, frames, height // 2, width // 2),
        reference_latent=torch.zeros(1, 20, references, height, width),
        ref_mask_flag=not case["replacement"],
    )
    return {"cos": freqs[0, :, 0, :, 0, 0], "sin": freqs[0, :, 0, :, 1, 0]}


def main(dit, vae_path, cases, folder):
    sys.path.insert(0, ".")
    sys.argv[1:] = ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sample
    import comfy.sd
    import comfy.utils
    import torch

    patcher, text_dim, clip_dim = core_model(dit)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(vae_path))
    with torch.inference_mode():
        for name, case in json.loads(Path(cases).read_text()).items():
            positive, negative, latent = conditioned(case, vae, text_dim, clip_dim)
            noise = comfy.sample.prepare_noise(latent["samples"], case["seed"])
            samples = comfy.sample.sample(
                patcher,
                noise,
                case["steps"],
                case["cfg"],
                "euler",
                "simple",
                positive,
                negative,
                latent["samples"],
                noise_mask=latent.get("noise_mask"),
                disable_pbar=True,
                seed=case["seed"],
            )
            turned = rotations(patcher, case)
            made = {"positive": positive, "negative": negative, "latent": latent, "samples": samples, "rope": turned}
            torch.save(made, Path(folder) / f"{name}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
