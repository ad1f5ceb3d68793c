"""What the tensors of the four networks are called in every public layout: data alone, which key_maps.py reads.

A pattern stands for many names:
    N       the number of a layer
    {a,b}   one name with each of the alternatives; an alternative may be empty
    .*      .weight and .bias, and for a matrix packed by mx.quantize also .scales and .biases
    ?       at the end: a file may do without
In a table the official pattern stands on the left, the foreign one on the right. Alternatives on both sides pair up.
On the left alone: the foreign tensor holds the official ones, stacked in this order along axis 0. On the right alone:
the official tensor is the foreign ones, stacked in this order. What a table leaves out is called the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "vae": "a Wan VAE",
    "t5_encoder": "a UMT5 text encoder",
    "clip": "a CLIP visual tower",
}

# The official names, which the networks use (CLIP's without the prefix "visual."); of the diffusion transformers those
# of every Wan model, to which a member's signature adds its own. Sources: the modules of zai-org/SCAIL-2
# (wan/modules/model_scail2.py) and Wan-Video/Wan2.1 (wan/modules/model.py, vae.py, t5.py, clip.py).
OFFICIAL = {
    "dit": (
        "patch_embedding.{weight,bias}",
        "text_embedding.{0,2}.{weight,bias}",
        "time_embedding.{0,2}.{weight,bias}",
        "time_projection.1.{weight,bias}",
        "blocks.N.modulation",
        "blocks.N.self_attn.{q,k,v,o}.{weight,bias}",
        "blocks.N.self_attn.norm_{q,k}.weight",
        "blocks.N.cross_attn.{q,k,v,o}.{weight,bias}",
        "blocks.N.cross_attn.norm_{q,k}.weight",
        "blocks.N.norm3.{weight,bias}",
        "blocks.N.ffn.{0,2}.{weight,bias}",
        "head.modulation",
        "head.head.{weight,bias}",
    ),
    "vae": (
        "conv{1,2}.{weight,bias}",
        "{encoder,decoder}.conv1.{weight,bias}",
        "{encoder.downsamples,decoder.upsamples}.N.residual.{0,3}.gamma?",
        "{encoder.downsamples,decoder.upsamples}.N.residual.{2,6}.{weight,bias}?",
        "{encoder.downsamples,decoder.upsamples}.N.{shortcut,resample.1,time_conv}.{weight,bias}?",
        "encoder.downsamples.{0,1,2,3}.downsamples.N.residual.{0,3}.gamma?",
        "encoder.downsamples.{0,1,2,3}.downsamples.N.residual.{2,6}.{weight,bias}?",
        "encoder.downsamples.{0,1,2,3}.downsamples.N.{shortcut,resample.1,time_conv}.{weight,bias}?",
        "decoder.upsamples.{0,1,2,3}.upsamples.N.residual.{0,3}.gamma?",
        "decoder.upsamples.{0,1,2,3}.upsamples.N.residual.{2,6}.{weight,bias}?",
        "decoder.upsamples.{0,1,2,3}.upsamples.N.{shortcut,resample.1,time_conv}.{weight,bias}?",
        "{encoder,decoder}.middle.{0,2}.residual.{0,3}.gamma",
        "{encoder,decoder}.middle.{0,2}.residual.{2,6}.{weight,bias}",
        "{encoder,decoder}.middle.1.norm.gamma",
        "{encoder,decoder}.middle.1.{to_qkv,proj}.{weight,bias}",
        "{encoder,decoder}.head.0.gamma",
        "{encoder,decoder}.head.2.{weight,bias}",
    ),
    "t5_encoder": (
        "token_embedding.weight",
        "blocks.N.norm{1,2}.weight",
        "blocks.N.attn.{q,k,v,o}.weight",
        "blocks.N.pos_embedding.embedding.weight",
        "blocks.N.ffn.{gate.0,fc1,fc2}.weight",
        "norm.weight",
    ),
    "clip": (
        "cls_embedding",
        "pos_embedding",
        "patch_embedding.weight",
        "pre_norm.{weight,bias}",
        "transformer.N.norm{1,2}.{weight,bias}",
        "transformer.N.attn.{to_qkv,proj}.{weight,bias}",
        "transformer.N.mlp.{0,2}.{weight,bias}",
        "post_norm.{weight,bias}?",
        "head?",
    ),
}

# zai-org/SCAIL-2's training checkpoint (SAT). Source: convert.py of the same repository, branch wan-scail2.
DIT_TRAINING = (
    ("patch_embedding{,_pose,_mask}.*", "mixins.patch_embed.proj{,_pose,_mask}.*"),
    ("time_embedding.{0,2}.*", "time_embed.{0,2}.*"),
    ("time_projection.1.*", "adaln_projection.1.*"),
    ("img_emb.proj.{0,1,3,4}.*", "clip_proj.proj.{0,1,3,4}.*"),
    ("blocks.N.modulation", "mixins.adaln_layer.adaLN_modulations.N"),
    ("blocks.N.self_attn.{q,k,v}.*", "transformer.layers.N.attention.query_key_value.*"),
    ("blocks.N.self_attn.o.*", "transformer.layers.N.attention.dense.*"),
    ("blocks.N.self_attn.norm_{q,k}.*", "mixins.adaln_layer.{query,key}_layernorm_list.N.*"),
    ("blocks.N.cross_attn.q.*", "transformer.layers.N.cross_attention.query.*"),
    ("blocks.N.cross_attn.{k,v}.*", "transformer.layers.N.cross_attention.key_value.*"),
    ("blocks.N.cross_attn.o.*", "transformer.layers.N.cross_attention.dense.*"),
    ("blocks.N.cross_attn.{k,v}_img.*", "mixins.adaln_layer.clip_feature_key_value_list.N.*"),
    ("blocks.N.cross_attn.norm_{q,k}.*", "mixins.adaln_layer.cross_{query,key}_layernorm_list.N.*"),
    ("blocks.N.cross_attn.norm_k_img.*", "mixins.adaln_layer.clip_feature_key_layernorm_list.N.*"),
    ("blocks.N.norm3.*", "transformer.layers.N.post_cross_attention_layernorm.*"),
    ("blocks.N.ffn.{0,2}.*", "transformer.layers.N.mlp.{dense_h_to_4h,dense_4h_to_h}.*"),
    ("head.modulation", "mixins.final_layer.adaLN_modulation"),
    ("head.head.*", "mixins.final_layer.linear.*"),
)

# Source: huggingface/diffusers, scripts/convert_wan_to_diffusers.py (TRANSFORMER_KEYS_RENAME_DICT). It has no SCAIL-2
# yet: that the two further stems keep their names is a guess, as patch_embedding does.
DIT_DIFFUSERS = (
    ("{text,time}_embedding.{0,2}.*", "condition_embedder.{text,time}_embedder.linear_{1,2}.*"),
    ("time_projection.1.*", "condition_embedder.time_proj.*"),
    (
        "img_emb.proj.{0,1,3,4}.*",
        "condition_embedder.image_embedder.{norm1,ff.net.0.proj,ff.net.2,norm2}.*",
    ),
    ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    ("blocks.N.modulation", "blocks.N.scale_shift_table"),
    ("blocks.N.self_attn.{q,k,v,o}.*", "blocks.N.attn1.to_{q,k,v,out.0}.*"),
    ("blocks.N.self_attn.norm_{q,k}.*", "blocks.N.attn1.norm_{q,k}.*"),
    ("blocks.N.cross_attn.{q,k,v,o}.*", "blocks.N.attn2.to_{q,k,v,out.0}.*"),
    ("blocks.N.cross_attn.{k,v}_img.*", "blocks.N.attn2.add_{k,v}_proj.*"),
    ("blocks.N.cross_attn.norm_{q,k,k_img}.*", "blocks.N.attn2.norm_{q,k,added_k}.*"),
    ("blocks.N.norm3.*", "blocks.N.norm2.*"),
    ("blocks.N.ffn.{0,2}.*", "blocks.N.ffn.net.{0.proj,2}.*"),
    ("head.modulation", "scale_shift_table"),
    ("head.head.*", "proj_out.*"),
)

# xocialize/SCAIL-2-bf16: mlx.nn.Sequential keeps its members under "layers". Sources: xocialize/scail-2-mlx,
# scail2_mlx/utils/weights.py; xocialize/scail-2-mlx-swift, Tests/SCAIL2Tests/Fixtures/key_contract.json.
DIT_XOCIALIZE = (
    ("{text,time}_embedding.{0,2}.*", "{text,time}_embedding.layers.{0,2}.*"),
    ("time_projection.1.*", "time_projection.layers.1.*"),
    ("img_emb.proj.{0,1,3,4}.*", "img_emb.proj.layers.{0,1,3,4}.*"),
    ("blocks.N.ffn.{0,2}.*", "blocks.N.ffn.layers.{0,2}.*"),
)
CLIP_XOCIALIZE = (("transformer.N.mlp.{0,2}.*", "transformer.N.mlp.layers.{0,2}.*"),)

# Source: deepbeepmeep/Wan2GP, its copy of SCAIL-2's convert.py.
DIT_WAN2GP = (("patch_embedding_{pose,mask}.*", "{pose,mask}_patch_embedding.*"),)

# Source: huggingface/diffusers, convert_vae() of the same script and AutoencoderKLWan.
_VAE_DIFFUSERS_BOTH = (
    ("{encoder,decoder}.conv1.*", "{encoder,decoder}.conv_in.*"),
    ("conv{1,2}.*", "{quant_conv,post_quant_conv}.*"),
    ("{encoder,decoder}.middle.0.residual.{0,3}.gamma", "{encoder,decoder}.mid_block.resnets.0.norm{1,2}.gamma"),
    ("{encoder,decoder}.middle.0.residual.{2,6}.*", "{encoder,decoder}.mid_block.resnets.0.conv{1,2}.*"),
    ("{encoder,decoder}.middle.1.norm.gamma", "{encoder,decoder}.mid_block.attentions.0.norm.gamma"),
    ("{encoder,decoder}.middle.1.{to_qkv,proj}.*", "{encoder,decoder}.mid_block.attentions.0.{to_qkv,proj}.*"),
    ("{encoder,decoder}.middle.2.residual.{0,3}.gamma", "{encoder,decoder}.mid_block.resnets.1.norm{1,2}.gamma"),
    ("{encoder,decoder}.middle.2.residual.{2,6}.*", "{encoder,decoder}.mid_block.resnets.1.conv{1,2}.*"),
    ("{encoder,decoder}.head.0.gamma", "{encoder,decoder}.norm_out.gamma"),
    ("{encoder,decoder}.head.2.*", "{encoder,decoder}.conv_out.*"),
)
VAE_DIFFUSERS = (
    *_VAE_DIFFUSERS_BOTH,
    ("encoder.downsamples.N.residual.{0,3}.gamma", "encoder.down_blocks.N.norm{1,2}.gamma"),
    ("encoder.downsamples.N.residual.{2,6}.*", "encoder.down_blocks.N.conv{1,2}.*"),
    ("encoder.downsamples.N.shortcut.*", "encoder.down_blocks.N.conv_shortcut.*"),
    ("encoder.downsamples.N.resample.1.*", "encoder.down_blocks.N.resample.1.*"),
    ("encoder.downsamples.N.time_conv.*", "encoder.down_blocks.N.time_conv.*"),
    ("decoder.upsamples.{0,1,2}.residual.{0,3}.gamma", "decoder.up_blocks.0.resnets.{0,1,2}.norm{1,2}.gamma"),
    ("decoder.upsamples.{0,1,2}.residual.{2,6}.*", "decoder.up_blocks.0.resnets.{0,1,2}.conv{1,2}.*"),
    ("decoder.upsamples.{4,5,6}.residual.{0,3}.gamma", "decoder.up_blocks.1.resnets.{0,1,2}.norm{1,2}.gamma"),
    ("decoder.upsamples.{4,5,6}.residual.{2,6}.*", "decoder.up_blocks.1.resnets.{0,1,2}.conv{1,2}.*"),
    ("decoder.upsamples.{8,9,10}.residual.{0,3}.gamma", "decoder.up_blocks.2.resnets.{0,1,2}.norm{1,2}.gamma"),
    ("decoder.upsamples.{8,9,10}.residual.{2,6}.*", "decoder.up_blocks.2.resnets.{0,1,2}.conv{1,2}.*"),
    ("decoder.upsamples.{12,13,14}.residual.{0,3}.gamma", "decoder.up_blocks.3.resnets.{0,1,2}.norm{1,2}.gamma"),
    ("decoder.upsamples.{12,13,14}.residual.{2,6}.*", "decoder.up_blocks.3.resnets.{0,1,2}.conv{1,2}.*"),
    ("decoder.upsamples.4.shortcut.*", "decoder.up_blocks.1.resnets.0.conv_shortcut.*"),
    ("decoder.upsamples.{3,7,11}.resample.1.*", "decoder.up_blocks.{0,1,2}.upsamplers.0.resample.1.*"),
    ("decoder.upsamples.{3,7}.time_conv.*", "decoder.up_blocks.{0,1}.upsamplers.0.time_conv.*"),
)

# Source: the same module with `is_residual`, as Wan2.2-TI2V-5B-Diffusers has it.
VAE22_DIFFUSERS = (
    *_VAE_DIFFUSERS_BOTH,
    *(
        row
        for b in range(4)
        for official, foreign, last, change in (
            (f"encoder.downsamples.{b}.downsamples.N", f"encoder.down_blocks.{b}", "2", "downsampler"),
            (f"decoder.upsamples.{b}.upsamples.N", f"decoder.up_blocks.{b}", "3", "upsampler"),
        )
        for row in (
            (f"{official}.residual.{{0,3}}.gamma", f"{foreign}.resnets.N.norm{{1,2}}.gamma"),
            (f"{official}.residual.{{2,6}}.*", f"{foreign}.resnets.N.conv{{1,2}}.*"),
            (f"{official}.shortcut.*", f"{foreign}.resnets.N.conv_shortcut.*"),
            (f"{official.replace('N', last)}.resample.1.*", f"{foreign}.{change}.resample.1.*"),
            (f"{official.replace('N', last)}.time_conv.*", f"{foreign}.{change}.time_conv.*"),
        )
    ),
)


def _as_mlx_gen(row: tuple[str, str]) -> tuple[str, str]:
    """Return a row of diffusers' VAE as mlx-gen's packages have it: convolutions in time lie one level deeper."""
    official, foreign = row
    if foreign.endswith(".gamma"):
        return official, f"{foreign.removesuffix('gamma')}weight"
    if ".resample.1." in foreign:
        return official, foreign.replace(".resample.1.", ".resample_conv.")
    if foreign.endswith(".{to_qkv,proj}.*"):
        return row
    return official, foreign.replace(".*", ".conv3d.*")


# lpalbou/mlx-gen's prepared packages. Source: its `mflux/models/wan`, as version 0.38.0 writes them.
DIT_MLX_GEN = (
    *(row for row in DIT_DIFFUSERS if "ffn" not in row[0]),
    ("blocks.N.ffn.{0,2}.*", "blocks.N.ffn.net.{0,1}.*"),
)
VAE_MLX_GEN, VAE22_MLX_GEN = (tuple(map(_as_mlx_gen, rows)) for rows in (VAE_DIFFUSERS, VAE22_DIFFUSERS))

# Blaizzy/mlx-video's converted folders. Source: its `mlx_video/models/wan_2/convert.py`.
DIT_MLX_VIDEO = (
    ("patch_embedding.*", "patch_embedding_proj.*"),
    ("{text,time}_embedding.{0,2}.*", "{text,time}_embedding_{0,1}.*"),
    ("time_projection.1.*", "time_projection.*"),
    ("blocks.N.ffn.{0,2}.*", "blocks.N.ffn.fc{1,2}.*"),
)
VAE22_MLX_VIDEO = (
    *(
        (f"{half}.residual.{numbers}", f"{half}.residual.layer_{numbers}")
        for b in range(4)
        for half in (f"encoder.downsamples.{b}.downsamples.N", f"decoder.upsamples.{b}.upsamples.N")
        for numbers in ("{0,3}.gamma", "{2,6}.*")
    ),
    *(
        (f"{half}.resample.1.{{weight,bias}}", f"{half}.resample_{{weight,bias}}")
        for b in range(4)
        for half in (f"encoder.downsamples.{b}.downsamples.N", f"decoder.upsamples.{b}.upsamples.N")
    ),
    *(
        (f"{{encoder,decoder}}.middle.{{0,2}}.residual.{n}", f"{{encoder,decoder}}.middle.{{0,2}}.residual.layer_{n}")
        for n in ("{0,3}.gamma", "{2,6}.*")
    ),
    (
        "{encoder,decoder}.middle.1.{to_qkv,proj}.{weight,bias}",
        "{encoder,decoder}.middle.1.{to_qkv,proj}_{weight,bias}",
    ),
    ("{encoder,decoder}.head.0.gamma", "{encoder,decoder}.head.layer_0.gamma"),
    ("{encoder,decoder}.head.2.*", "{encoder,decoder}.head.layer_2.*"),
)

# Sources: huggingface/transformers, models/umt5/modeling_umt5.py; ComfyUI, comfy/text_encoders/t5.py (same names).
# The table of tokens is one tensor under two names: the second counts where the first is missing.
T5_HF = (
    ("token_embedding.weight", "shared.weight"),
    ("token_embedding.weight", "encoder.embed_tokens.weight"),
    ("blocks.N.norm{1,2}.*", "encoder.block.N.layer.{0,1}.layer_norm.*"),
    ("blocks.N.attn.{q,k,v,o}.*", "encoder.block.N.layer.0.SelfAttention.{q,k,v,o}.*"),
    ("blocks.N.pos_embedding.embedding.*", "encoder.block.N.layer.0.SelfAttention.relative_attention_bias.*"),
    ("blocks.N.ffn.{gate.0,fc1,fc2}.*", "encoder.block.N.layer.1.DenseReluDense.{wi_0,wi_1,wo}.*"),
    ("norm.*", "encoder.final_layer_norm.*"),
)

# llama.cpp's names, in GGUF files. Sources: gguf-py/gguf/constants.py; city96/ComfyUI-GGUF, loader.py (T5_SD_MAP).
T5_GGUF = (
    ("token_embedding.*", "token_embd.*"),
    ("blocks.N.norm{1,2}.*", "enc.blk.N.{attn,ffn}_norm.*"),
    ("blocks.N.attn.{q,k,v,o}.*", "enc.blk.N.attn_{q,k,v,o}.*"),
    ("blocks.N.pos_embedding.embedding.*", "enc.blk.N.attn_rel_b.*"),
    ("blocks.N.ffn.{gate.0,fc1,fc2}.*", "enc.blk.N.ffn_{gate,up,down}.*"),
    ("norm.*", "enc.output_norm.*"),
)

# Sources: Blaizzy/mlx-video, wan_2/convert.py (sanitize_wan_t5_weights); SceneWorks/scail2-mlx has the same.
T5_TURNKEY = (("blocks.N.ffn.gate.0.*", "blocks.N.ffn.gate_proj.*"),)

# Sources: huggingface/transformers, models/clip/modeling_clip.py (and its spelling of pre_layrnorm); ComfyUI,
# comfy/clip_model.py (CLIPVisionModelProjection). Without the projection it is transformers' CLIPVisionModel.
CLIP_HF = (
    ("cls_embedding", "vision_model.embeddings.class_embedding"),
    ("pos_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("pre_norm.*", "vision_model.pre_layrnorm.*"),
    ("transformer.N.norm{1,2}.*", "vision_model.encoder.layers.N.layer_norm{1,2}.*"),
    ("transformer.N.attn.to_qkv.*", "vision_model.encoder.layers.N.self_attn.{q,k,v}_proj.*"),
    ("transformer.N.attn.proj.*", "vision_model.encoder.layers.N.self_attn.out_proj.*"),
    ("transformer.N.mlp.{0,2}.*", "vision_model.encoder.layers.N.mlp.fc{1,2}.*"),
    ("post_norm.*", "vision_model.post_layernorm.*"),
    ("head", "visual_projection.weight"),
)

# open_clip, where the tower comes from (laion/CLIP-ViT-H-14-...). Source: ComfyUI, comfy/clip_vision.py and utils.py.
CLIP_OPENCLIP = (
    ("cls_embedding", "class_embedding"),
    ("pos_embedding", "positional_embedding"),
    ("patch_embedding.weight", "conv1.weight"),
    ("pre_norm.*", "ln_pre.*"),
    ("transformer.N.norm{1,2}.*", "transformer.resblocks.N.ln_{1,2}.*"),
    ("transformer.N.attn.to_qkv.{weight,bias}", "transformer.resblocks.N.attn.in_proj_{weight,bias}"),
    ("transformer.N.attn.proj.*", "transformer.resblocks.N.attn.out_proj.*"),
    ("transformer.N.mlp.{0,2}.*", "transformer.resblocks.N.mlp.{c_fc,c_proj}.*"),
    ("post_norm.*", "ln_post.*"),
    ("head", "proj"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a component is published.

    `prefixes`: what may stand before all its names. `harmless`: further names that such files hold and nobody needs,
    whole, with * for anything. `leading`: tensors that lack axes of length 1 in front, and how many. `transposed`:
    matrices stored the other way round. `channels_last` tells layouts of the same names apart; how a file's
    convolutions are stored is read from their shapes.
    """

    component: str
    name: str
    called: str
    table: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[str, ...] = ("",)
    harmless: tuple[str, ...] = ()
    leading: tuple[tuple[str, int], ...] = ()
    transposed: tuple[str, ...] = ()
    channels_last: bool = False


COMFY = ("model.diffusion_model.", "diffusion_model.")
VAE_PREFIXES = ("", "model.", "vae.", "first_stage_model.")
T5_PREFIXES = ("", "transformer.", "text_encoder.", "umt5xxl.transformer.", "text_encoders.umt5xxl.transformer.")
T5_REST = ("*encoder.embed_tokens.weight", "decoder.*", "lm_head.weight", "*spiece_model")
CLIP_REST = ("*textual.*", "*log_scale")
HF_REST = ("text_model.*", "text_projection.weight", "logit_scale", "*position_ids")
OPENCLIP_REST = (
    ("text.*", "transformer.*", "token_embedding.weight", "positional_embedding", "ln_final.*", "text_projection")
    + ("logit_scale", "attn_mask")
)  # fmt: skip
FREQS = ("*freqs",)
ROPE = ("rope.freqs_*",)
ONES = (("cls_embedding", 2), ("pos_embedding", 1))

# The first of equals counts. Kijai's files of VAE, UMT5 and CLIP and the snapshot's DiT have the official names.
LAYOUTS = (
    Layout("dit", "official", "with the official names", harmless=FREQS),
    Layout("dit", "comfy", "with ComfyUI's prefix", prefixes=COMFY, harmless=FREQS),
    Layout("dit", "training", "as it was trained", DIT_TRAINING, (COMFY[0], f"module.{COMFY[0]}", ""), FREQS),
    Layout("dit", "diffusers", "in the layout of diffusers", DIT_DIFFUSERS, ("", "transformer."), FREQS),
    Layout("dit", "xocialize", "in the layout of xocialize", DIT_XOCIALIZE, ("",), FREQS, channels_last=True),
    Layout("dit", "wan2gp", "in the layout of Wan2GP", DIT_WAN2GP, ("", *COMFY), FREQS),
    Layout("dit", "mlx-video", "in the layout of mlx-video", DIT_MLX_VIDEO, harmless=FREQS),
    Layout("dit", "mlx-gen", "in the layout of mlx-gen", DIT_MLX_GEN, ("",), ROPE, channels_last=True),
    Layout("vae", "official", "with the official names", prefixes=VAE_PREFIXES),
    Layout("vae", "turnkey", "in the layout of MLX snapshots", prefixes=VAE_PREFIXES, channels_last=True),
    Layout("vae", "diffusers", "in the layout of diffusers", VAE_DIFFUSERS),
    Layout("vae", "diffusers22", "in the layout of diffusers", VAE22_DIFFUSERS),
    Layout("vae", "mlx-gen", "in the layout of mlx-gen", VAE_MLX_GEN, channels_last=True),
    Layout("vae", "mlx-gen22", "in the layout of mlx-gen", VAE22_MLX_GEN, channels_last=True),
    Layout("vae", "mlx-video22", "in the layout of mlx-video", VAE22_MLX_VIDEO, channels_last=True),
    Layout("t5_encoder", "official", "with the official names", prefixes=("", "model.")),
    Layout("t5_encoder", "turnkey", "in the layout of MLX snapshots", T5_TURNKEY),
    Layout("t5_encoder", "hf_t5", "in the layout of transformers", T5_HF, T5_PREFIXES, T5_REST),
    Layout("t5_encoder", "gguf_t5", "with llama.cpp's names", T5_GGUF, ("",), ("dec.*", "output.weight")),
    Layout("clip", "turnkey", "in the layout of MLX snapshots"),
    Layout("clip", "official", "with the official names", (), ("visual.", "model.visual."), CLIP_REST),
    Layout("clip", "xocialize", "in xocialize's layout", CLIP_XOCIALIZE, ("visual.",), CLIP_REST, channels_last=True),
    Layout("clip", "hf_clip", "in the layout of transformers", CLIP_HF, ("",), HF_REST, ONES, ("head",)),
    Layout("clip", "openclip", "in the layout of open_clip", CLIP_OPENCLIP, ("visual.",), OPENCLIP_REST, ONES),
)

# Whose network keeps the channels of a convolution last, [out, ..., in]; the others keep them as PyTorch does.
CHANNELS_LAST_NETWORKS = ("vae",)
# A convolution of each: its kernel's last two sides are equal, and its input channels are another number.
CONVOLUTIONS = {"dit": "patch_embedding.weight", "vae": "conv2.weight", "clip": "patch_embedding.weight"}

# A name of a LoRA or one of its relatives.
LORA = r"(^|[._])lora([._]|$)|(^|\.)lycoris_|\.(hada_|lokr_|oft_|dora_scale)|\.(diff|diff_b|diff_m|set_weight)$"
