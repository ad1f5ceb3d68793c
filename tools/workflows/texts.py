"""Notes and prompts of the workflows."""

from __future__ import annotations

from tools import samples

ANIMATION, REPLACEMENT = "animation", "replacement"

COLOURS = {ANIMATION: ("blue on white", "blue on black"), REPLACEMENT: ("blue on black", "blue on white")}

_REPOSITORY = "[SceneWorks/scail2-mlx](https://huggingface.co/SceneWorks/scail2-mlx)"
_DOWNLOADED = (
    f"{_REPOSITORY}: /q4 (24 GB), /q8 (32 GB) or /bf16 (47 GB). It is downloaded when the workflow next runs, to "
    "`ComfyUI/models/scail2/scail2-mlx`; an interrupted download goes on where it stopped."
)
_INSTALLED = (
    "You have it already? Put its folder into `ComfyUI/models/scail2/` and press **R**. Files of other programs can be "
    "chosen in the loader one by one. What does not fit into memory is streamed from disk: the same numbers, a little "
    "slower."
)
_AUTO = (
    "*auto* takes the first snapshot in `ComfyUI/models/scail2/`; where there is none, the **small puppet model** that "
    "comes with this pack. It knows puppets like these and nothing else: 96 × 96 pixels, segments of 9 frames and cfg "
    "1, whatever is set."
)
MODEL = (
    f"**To try it, nothing is downloaded.** {_AUTO}\n\n"
    f"**For your own pictures** choose SCAIL-2 (14B) in the loader: {_DOWNLOADED}\n\n{_INSTALLED}"
)
MODEL_PUBLISHED = f"### SCAIL-2 (14B) in MLX format\n\n{_DOWNLOADED}\n\n{_INSTALLED}"
REFERENCE = {
    ANIMATION: (
        "**The character, in its own scene.** The video keeps this picture's background.\n\n"
        "Show the whole figure, about as large as the person in the driving video.\n\n"
        "**Its mask** has the same shape as the picture:\n\n"
        "- character: pure **blue** (0, 0, 255)\n- background: **white**\n\n"
        "White marks the scene that is kept, black a scene that is left out. *(Replacement mode needs black here.)*"
    ),
    REPLACEMENT: (
        "**The character** that takes the person's place. The background of this picture is not used.\n\n"
        "Show the whole figure, about as large as the person in the driving video.\n\n"
        "**Its mask** has the same shape as the picture:\n\n"
        "- character: pure **blue** (0, 0, 255)\n- background: **black**\n\n"
        "White marks the scene that is kept, black a scene that is left out. *(Animation mode needs white here.)*"
    ),
}
SEVERAL_PEOPLE = (
    "**Several people:** one colour each, in this order: blue, red, green, magenta, cyan, yellow. The same character "
    "has the same colour in both masks.\n\n"
    "For one person a MASK, for example from SAM 3, does as well: connect it to the sampler, and it is coloured for "
    "you."
)
DRIVING = {
    ANIMATION: (
        "**The movement.** Only the motion is taken from this video, not its place. *Load Video* "
        "shows it at **16 frames a second**, the rate the model was trained at.\n\n"
        "**Its mask** has the same number of frames:\n\n"
        "- person: pure **blue**\n- background: **black**\n\n"
        f"Black, because this scene is left out. *(Replacement mode needs white here.)*\n\n{SEVERAL_PEOPLE}"
    ),
    REPLACEMENT: (
        "**The movement and the scene.** The video keeps this place; only the person is replaced. *Load "
        "Video* shows it at **16 frames a second**, the rate the model was trained at.\n\n"
        "**Its mask** has the same number of frames:\n\n"
        "- person: pure **blue**\n- background: **white**\n\n"
        f"White, because this scene is kept. *(Animation mode needs black here.)*\n\n{SEVERAL_PEOPLE}"
    ),
}
_SCENE = {
    ANIMATION: "the puppet dancing in its own scene",
    REPLACEMENT: "the new puppet dancing in the scene of the driving video",
}
_MODE = {
    ANIMATION: "*animation* keeps the scene of the reference picture, *replacement* that of the driving video.",
    REPLACEMENT: "*replacement* keeps the scene of the driving video, *animation* that of the reference picture.",
}


def prompt(mode: str) -> str:
    """Return the prompt for one puppet: a caption as the small model was trained on."""
    return samples.prompt(samples.solo(), mode)


def prompt_two() -> str:
    """Return the prompt for two puppets (animation)."""
    return samples.prompt(samples.pair(), ANIMATION)


def settings(mode: str) -> str:
    """Return the note about prompt and settings."""
    return (
        f"**Prompt:** describe the video that should come out: who, clothes, movement, place. Here: {_SCENE[mode]}, "
        "in the few words that the small puppet model knows. The published model wants whole sentences. The negative "
        "prompt can stay empty.\n\n| setting | meaning |\n|---|---|\n"
        f"| **mode** | {_MODE[mode]} The backgrounds of the masks must fit: see the notes on the left. |\n"
        "| **width, height** | Multiples of 32, in the shape of your own pictures: they are cropped to it. Square "
        "here, as the samples are. The published model knows 896 × 512 best, and 1280 × 704. |\n"
        "| **steps, cfg, shift, solver** | 40, 5, 3 and unipc are the authors' choice; shift 5 at 1280 × 704. |\n"
        '| **seed** | The same seed gives the same video. Set "control after generate" to *randomize* for a new one '
        "each "
        "time. |\n"
        "| **segment length, overlap** | Longer videos are made in segments of 81 frames; each goes on from the last 5 "
        "frames of the one before. |\n"
        "| **start frame, max frames** | Use a part of the driving video; 0 takes all of it. |\n\n"
        "**A quick look first:** turn *draft* on. It makes the first 33 frames at half the size, with the seed and the "
        "framing of the whole: rough, but it shows whether the masks and the prompt are right.\n\n"
        "**Before it starts** the sampler says below itself how long the run takes at least and what memory it needs."
    )


def result(name: str) -> str:
    """Return the note about the video that is saved."""
    return (
        "**Wan VAE Decode** turns the latent into frames and joins the segments. Tile size 0 takes tiles by itself "
        "where whole frames do not fit.\n\n"
        "**Create Video** takes the frame rate and the sound of the driving video.\n\n"
        f"**Save Video** writes `output/video/{name}_00001_.mp4`; the next run gets the next number.\n\n"
        "For a part of the video set *start frame* and *max frames* in both *Load Video* nodes, not in the sampler: "
        "then the sound begins with it."
    )


REFERENCE_TWO = (
    "**Two characters, in their own scene.** The video keeps this picture's background.\n\n"
    "Each stands where its dancer stands: people are told apart by their colours, and they move least when the places "
    "agree.\n\n**The mask** has one colour for each:\n\n"
    "- left: pure **blue** (0, 0, 255)\n- right: pure **red** (255, 0, 0)\n- background: **white**\n\n"
    "Up to six: green, magenta, cyan and yellow come next."
)
DRIVING_TWO = (
    "**The movement of both.** One video, two dancers.\n\n**Its mask** has the same colours for the same roles:\n\n"
    "- who drives the blue character: **blue**\n- who drives the red one: **red**\n- background: **black**\n\n"
    "Exchange the colours in one of the masks, and the two exchange their dances.\n\n"
    "Keep the number of people the same from the first frame to the last. People who cross each other's way are hard "
    "for the model: their places in the masks get mixed."
)
CHECK = (
    "**One look before an hour of sampling.** *Input Check* shows the pictures and masks as the model will see them, "
    "the plan (frames, segments, passes, memory), and what is odd: backgrounds that do not fit the mode, people on one "
    "side only, colours that are too dark, very different sizes.\n\n"
    "To look without sampling, select the frame *Prompt and sampling* with all nodes in it and press **Ctrl+B** "
    "(bypass), or select *Input Check* and choose *Run* on it.\n\n"
    "Its mode, size, frames, steps and cfg are those of the sampler: change both."
)
REFERENCES = (
    "**One character, several pictures.** The first one counts most: its scene is kept, and where the character stands "
    "in it. The others show what the first does not: another pose, the back, the face from near. Here it is the same "
    "puppet in another pose, cut out on black.\n\n"
    "**Batch Images** joins them, all of one size, in the same order as their masks. The first input is the primary "
    "picture.\n\n"
    "**Masks:** one per picture, the character in the **same colour** everywhere. The first is on **white** "
    "(animation: this scene is kept), the others on **black** (theirs is not), as the small puppet model was "
    "trained.\n\n"
    "Several references are experimental in SCAIL-2 itself: more is not always better, and each costs the memory of "
    "another frame."
)
DRIVING_PLAIN = (
    "**The movement.** Only the motion is taken from this video, not its place, at **16 frames a second**.\n\n"
    "**Its mask** has the same number of frames, the person in **blue** on **black** (animation)."
)
DRIVING_LONG = (
    "**A longer clip at its own rate.** This one has 24 frames a second and music. The model knows 16.\n\n"
    "**Resample FPS** picks the frames that belong to 16 frames a second, from video and mask alike: here 96 of 144. "
    "Nothing is blended.\n\n"
    "**Its mask** has the same number of frames as the video, at the same rate: blue on black (animation).\n\n"
    "Nothing of it is decoded before the sampler needs it, so a long clip takes no memory."
)
LONG = (
    "**Segments.** The model makes 81 frames at once, the small puppet model 9. These 96 frames are two "
    "segments of 81: the second continues from the last 5 frames of the first. No frame is dropped, "
    "whatever the length, and memory does not grow with it.\n\n"
    "| setting | meaning |\n|---|---|\n"
    "| **history** | What a segment continues from. *pixels* as SCAIL-2's authors; *latents* leaves out one way "
    "through the VAE per segment. |\n"
    "| **colour anchor** | Holds brightness and colours at those of the first segment. |\n"
    "| **segment seed** | The noise of later segments. |\n"
    "| **resume** | Finished segments are kept in `output/scail2_resume`. A run that was cancelled goes on there when "
    "it is queued again with the same inputs. |\n\n"
    "**Look at the first segment before you wait for all:** set *max frames* to 81, or turn *draft* on.\n\n"
    "**Prompt:** describe what the whole clip shows; every segment gets the same."
)
RESULT_LONG = (
    "**Resample FPS**, the other way: the frames go back to the rate of the driving clip, and its sound is cut to "
    "their duration.\n\n**Create Video** gets that rate and that sound.\n\n"
    "**Report** writes settings, seed, model and times as a file beside the video.\n\n"
    "For a part of the clip set *start frame* and *max frames* in both *Load Video* nodes: the sound is cut with it."
)
DRIVING_STILL = (
    "**One pose from a video.** *start frame* on the sampler says which frame is taken, *max frames* is 1.\n\n"
    "A picture does as well: connect a Load Image to *driving_video*, and its mask to *driving_mask*.\n\n"
    "**The mask:** blue on black (animation), as for a whole video."
)
STILL = (
    "**A still picture:** one frame is one latent, so it takes a small part of the time of a video. Use it to try a "
    "character, a mask or a prompt, or to make another view for *several references*.\n\n"
    "| setting | meaning |\n|---|---|\n"
    "| **start frame** | Which frame of the driving video gives the pose. |\n"
    "| **max frames** | 1: one frame. |\n"
    "| **width, height** | Multiples of 32. |\n"
    "| **seed** | Another seed, another picture. |"
)
RESULT_STILL = (
    "**Save Image** writes `output/scail2_still_image_00001_.png`.\n\nThere is no sound and no frame rate to keep."
)
REFERENCE_MASK = (
    "**The character, in its own scene**, and where it is: **white on black**, as any drawing program saves it. *Load "
    "Image (as Mask)* reads one channel.\n\n"
    "**Or paint it here:** right-click *Reference picture*, *Open in MaskEditor*, paint the character, save. Then "
    "connect the picture's own **MASK** output to *reference* of Colored Mask."
)
DRIVING_MASK = (
    "**The movement**, and where the person is in each frame: a video in white on black with as many frames. Editors "
    "write such mattes (magic mask, roto brush), and so do background removers.\n\n"
    "*Load Video* gives its brightness as a MASK.\n\n"
    "**Several people:** one such video each. Join their masks with *Batch Masks*, and set *people per mask* to how "
    "many they are."
)
MASKS = (
    "**Colored Mask** paints both sides in the model's colours, with the backgrounds that the mode needs, and shows "
    "them. Its mode is that of the sampler: change all of them together.\n\n"
    "Nothing here needs SAM 3 or a GPU library beyond this pack."
)
MASKS_FOUND = (
    "**Colored Mask** paints what SAM 3 found in the model's colours, with the backgrounds that the mode needs, and "
    "shows it. Its mode is that of the sampler: change all of them together.\n\n"
    "*order* says who gets the first colour, on both sides; *people* chooses some, as 0,2."
)
REFERENCE_SAM = (
    "**The character, in its own scene.** Its mask is found by SAM 3, by what you write in *What is the "
    "character?*.\n\n"
    "Show the whole figure, about as large as the person in the driving video."
)
DRIVING_SAM = (
    "**The movement.** SAM 3 follows the person through the video, by what you write in *Who moves?*.\n\n"
    "*Load Video* shows it at **16 frames a second**. SAM 3 takes images, so set its *width*, *height* and *max "
    "frames* for a long or large clip.\n\n"
    "**Several people:** *max objects* says how many at most. They get their colours from left to right, on both sides."
)
SAM = (
    "**SAM 3** is ComfyUI's own, and needs [its checkpoint](https://huggingface.co/Comfy-Org/sam3.1) (1.6 GB) in "
    "`ComfyUI/models/checkpoints`.\n\n"
    "**On a Mac** PyTorch may lack an operation that SAM 3 needs on the GPU (MPS). Then start ComfyUI with the "
    "environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1`: what is missing runs on the CPU, the rest on the GPU. If "
    "that fails as well, start once with `--cpu`, save the masks, and go on without it. This has not been tried on a "
    "Mac.\n\n"
    "Its memory is given back before the sampler starts.\n\n"
    "**Colored Mask** paints what was found. Without SAM 3: the workflow *scail2_masks_from_mask*."
)
CORE_TEMPLATE = (
    "**ComfyUI's own template for SCAIL-2** (character replacement), with the model in MLX. ComfyUI's nodes prepare "
    "the conditioning and decode the result; these are replaced:\n\n"
    "| in the template | here |\n|---|---|\n"
    "| Load Diffusion Model | Load SCAIL-2 |\n"
    "| Load LoRA (Model only) | SCAIL-2 LoRA |\n"
    "| Load Video, Get Video Components, Get Image from Batch, Resize Image/Mask | SCAIL-2 Load Video |\n"
    "| ModelSamplingSD3, BasicScheduler, KSamplerSelect, SamplerCustom | SCAIL-2 Sampler for core conditioning |\n\n"
    "In a graph of your own do the same, and leave the rest.\n\n"
    "**Already have the template's files?** Choose *only the files below* as snapshot in the loader, and your "
    "`wan2.1_14B_SCAIL_2_fp16.safetensors` as *dit*: nothing is downloaded then.\n\n"
    "**One segment of up to 81 frames**, as the template's first part. *max frames* in *Load Video* "
    "is *length* in *WanSCAILToVideo*, and their sizes are the same. Longer videos are easier with the "
    "workflow *scail2_long_video*, which plans its segments by itself.\n\n"
    "ComfyUI's own text encoder, CLIP, VAE and SAM 3 run in PyTorch and share the Mac's memory with the model."
)
LORAS = (
    "The template's two LoRAs, at its strengths. **lightx2v** is what lets 6 steps without guidance do. Without it: "
    "bypass it (Ctrl+B), 40 steps, cfg 5."
)
CORE_SAMPLER = (
    '**Euler on ComfyUI\'s "simple" scheduler at shift 8:** the steps that the template really takes, as its '
    "scheduler gets the model from before *ModelSamplingSD3*. The same seed and settings give the same noise as "
    "ComfyUI.\n\n"
    "**pose rope** *midpoint* is ComfyUI's way.\n\n"
    "**Replacement mode** is set twice: in *Create SCAIL-2 Colored Mask* and in *WanSCAILToVideo*. Both off: "
    "animation.\n\n"
    "The prompt describes the video that should come out."
)
RESULT_CORE = (
    "**VAE Decode** is ComfyUI's; *Wan VAE Decode* of this pack decodes the same latent in MLX.\n\n"
    "**Create Video** takes the frame rate and the sound of the driving video.\n\n"
    "**Save Video** writes `output/video/scail2_core_template_00001_.mp4`."
)
ONE_NODE = (
    "**Everything in one node:** it loads the model, reads the prompt, samples, decodes, and brings the result back to "
    "the frame rate of the driving video.\n\n"
    f"{_AUTO} For your own pictures choose {_DOWNLOADED}\n\n"
    "| setting | meaning |\n|---|---|\n"
    "| **mode** | *animation* keeps the scene of the reference picture, *replacement* that of the driving video. |\n"
    "| **preset** | *quality*: as SCAIL-2's authors. *fast*: 6 steps, with the LoRAs lightx2v and DPO from "
    "`models/loras`. |\n"
    "| **size** | 704p has about twice the pixels of 512p. |\n"
    "| **seed** | The same seed gives the same video. |\n"
    "| **max frames** | Most frames of the driving video; 0 takes all. |\n\n"
    "For every other setting take the workflow *scail2_animation*: the same in single nodes."
)
RESULT_ONE = (
    "**Create Video** takes the frame rate that the node gives, and the sound of the driving video.\n\n"
    "**Save Video** writes `output/video/scail2_one_node_00001_.mp4`; the next run gets the next number."
)
