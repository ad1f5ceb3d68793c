"""Scail2CoreSampler without ComfyUI: conditioning as WanSCAILToVideo makes it, from streams that are known."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import torch
from support import GOLDENS, golden_prompts, golden_scene, golden_settings
from test_nodes import decoded, sampled

from demo.pack import load_pack
from mlx_backend.interface.continuation import Continuation
from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.geometry import LatentSize
from mlx_backend.interface.latent_space import WAN21
from mlx_backend.members.member import Encoding
from mlx_backend.members.scail2.comfy_streams import ComfyCondition, ComfyStreams, applying, percent_to_sigma
from mlx_backend.members.scail2.prepared import prepare_run
from mlx_backend.pipelines.continuing import Continuing
from mlx_backend.pipelines.picture import encode_picture
from mlx_backend.pipelines.planning import plan_denoising
from mlx_backend.pipelines.store import get_dit, get_vae
from mlx_backend.pipelines.text import encode_prompts
from mlx_backend.sampling.noise import TorchNoise
from mlx_backend.sampling.schedules import simple_schedule

# Latents go to their raw form and back, which rounds them by 1e-7 of their values; guidance of 5 multiplies what the
# passes make of that. Seen: 1.1e-5 without guidance, 8e-5 with it. Another pose RoPE is 1e-3 away and more.
BAR = 2e-4
TEXT_TOKENS = 512  # ComfyUI pads prompts with zeros itself


def still():
    """Do not cancel."""


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(np.array(array)))[None]


def conditioning(text, clip_tokens, streams):
    """Return a CONDITIONING of one entry, as WanSCAILToVideo makes it."""
    padded = np.zeros((TEXT_TOKENS, text.shape[1]), np.float32)
    padded[: len(text)] = text
    options = {
        "ref_mask_flag": not streams.replacement,
        "reference_latents": [tensor(WAN21.raw(np.array(r.latent))) for r in streams.references],
        "pose_video_latent": tensor(WAN21.raw(np.array(streams.driving))),
        "clip_vision_output": SimpleNamespace(penultimate_hidden_states=tensor(clip_tokens)),
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    if streams.driving_mask is not None:
        options["driving_mask_28ch"] = tensor(np.array(streams.driving_mask).swapaxes(0, 1))
    masks = [r.mask for r in streams.references]
    if masks[0] is not None:
        frame = np.zeros_like(np.array(masks[0]))
        ordered = [np.array(mask) for mask in (*masks[1:], masks[0])] + [frame] * streams.driving.shape[1]
        options["ref_mask_28ch"] = tensor(np.concatenate(ordered, axis=1).swapaxes(0, 1))
    return [[tensor(padded), options]]


class CoreGraph:
    """A golden case as ComfyUI's nodes would hand it to the sampler: its segment `number`, continued from `made`."""

    def __init__(self, index, models, listener, number=0, made=(), text="positive"):
        self.scene, self.settings = golden_scene(index), golden_settings(index)
        run = prepare_run(self.scene.references[:1], self.scene, self.settings, listener)
        vae, segment = get_vae(models.vae, listener), run.plan.segments[number]
        how = Encoding(vae=vae, tiling=None, check_cancelled=still, begin=lambda *_: lambda _: None)
        self.streams = run.scene.encode(how, self.settings).streams(number, segment)
        prompts = golden_prompts(index)
        self.text = encode_prompts(models.text_encoder, prompts.positive, prompts.negative, listener)
        self.clip_tokens = encode_picture(models.clip, run.seen_by_clip[0], (), listener)
        size = LatentSize.of_pixels(segment.frames, *run.scene.size)
        samples, self.noise_mask = torch.zeros(1, *size.shape), None
        if number:
            continuing = Continuing(vae=vae, how=Continuation(), plan=run.plan, tiling=None, listener=listener)
            history = continuing.history(number, list(made), size)
            samples = tensor(WAN21.raw(np.array(history.clean)))
            known = np.broadcast_to(np.array(history.mask), (1, *size.shape[1:]))
            self.noise_mask = tensor(1 - known.astype(np.float32))
        self.latent = {"samples": samples} | ({} if self.noise_mask is None else {"noise_mask": self.noise_mask})

    def inputs(self, **changes):
        settings = self.settings
        model = changes.pop("model")
        return {
            "model": model,
            "positive": conditioning(self.text.positive, self.clip_tokens, self.streams),
            "negative": conditioning(self.text.negative, self.clip_tokens, self.streams),
            "latent_image": self.latent,
            "seed": settings.seed,
            "steps": settings.steps,
            "cfg": settings.cfg,
            "shift": settings.shift,
            "solver": settings.solver,
            "grid": "upstream",
            "pose_rope": "upstream",
        } | changes


@pytest.fixture
def model(nodes):
    return nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})[0]


def sample(nodes, graph, model, **changes):
    return sample_and_report(nodes, graph, model, **changes)[0]


def sample_and_report(nodes, graph, model, **changes):
    return nodes["Scail2CoreSampler"](graph.inputs(model=model, **changes))


@pytest.mark.parametrize("index", [0, 1, 2, 5, 6, 7, 8])
def test_the_same_streams_give_what_our_sampler_gives(index, nodes, models, model, listener):
    """Both modes, each solver, with and without guidance, masks and extra references."""
    ours = sampled(nodes, index)[1]["samples"]
    made = sample(nodes, CoreGraph(index, models, listener), model)["samples"]
    assert made.shape == ours.shape
    assert made.dtype == torch.float32
    assert (made - ours).abs().max() < BAR


@pytest.mark.parametrize("index", [3, 4])
def test_a_clip_is_continued_as_our_sampler_continues_it(index, nodes, models, model, listener):
    ours = sampled(nodes, index, segment_seed="fixed", resume=False)[1]["samples"]
    graph = CoreGraph(index, models, listener, number=1, made=[WAN21.normalised(ours[0].numpy())])
    latent = sample(nodes, graph, model)
    known = graph.noise_mask[0, 0] == 0
    assert (latent["samples"][0] - ours[1]).abs().max() < BAR
    assert (latent["samples"][0] - graph.latent["samples"][0])[:, known].abs().max() < 1e-5  # rounded on the way
    assert torch.equal(latent["noise_mask"], graph.noise_mask)  # handed on, as by ComfyUI's samplers


def test_the_pose_rope_reaches_both_samplers(nodes, models, model, listener):
    graph, found = CoreGraph(0, models, listener), {}
    for rope in ("upstream", "midpoint"):
        ours = sampled(nodes, 0, pose_rope=rope)[1]["samples"]
        found[rope] = sample(nodes, graph, model, pose_rope=rope)["samples"]
        assert (found[rope] - ours).abs().max() < BAR
    assert (found["upstream"] - found["midpoint"]).abs().max() > 1e-3


def test_the_decoder_takes_the_latent(nodes, models, model, listener):
    latent = sample(nodes, CoreGraph(0, models, listener), model)
    vae, ours = sampled(nodes, 0)
    pictures = decoded(nodes, vae, latent)
    assert pictures.shape == (9, 64, 96, 3)
    assert (pictures - decoded(nodes, vae, ours)).abs().max() < 1e-4


def ranged(entries, start, end):
    """Return the CONDITIONING with its pose in a range only, cut as WanSCAILToVideo cuts it."""
    ((text, options),) = entries
    without = {key: value for key, value in options.items() if key != "pose_video_latent"}
    cut = [[text, options | {"start_percent": start, "end_percent": end}]]
    if start > 0:
        cut.insert(0, [text, without | {"start_percent": 0.0, "end_percent": start - 1e-5}])
    if end < 1:
        cut.append([text, without | {"start_percent": end + 1e-5, "end_percent": 1.0}])
    return cut


def test_outside_its_range_the_pose_and_its_mask_are_no_tokens(nodes, models, model, listener):
    """Against Euler steps taken here, on the model with and without the driving video."""
    graph = CoreGraph(1, models, listener)
    positive = ranged(conditioning(graph.text.positive, graph.clip_tokens, graph.streams), 0.0, 0.5)
    steps = {"steps": 6, "shift": 8.0, "solver": "euler", "grid": "simple"}
    made = sample(nodes, graph, model, positive=positive, **steps)["samples"][0]

    dit = get_dit(models.dit, listener)
    shape = graph.latent["samples"].shape[1:]
    context = dit.embed_context(mx.array(graph.text.positive), mx.array(graph.clip_tokens))
    conditionings = [
        dit.condition(context, tuple(shape[1:]), replace(graph.streams, **changes))
        for changes in ({}, {"driving": None, "driving_mask": None})
    ]
    grid, x = simple_schedule(6, 8.0), mx.array(TorchNoise(graph.settings.seed).draw(tuple(shape)))
    for step in range(6):
        # the sigmas are 1, .976, .941, .889, .800, .616, and half of the schedule is passed below .8889
        velocity = dit(x, grid.timesteps[step], conditionings[step >= 4], still)
        x = x + (grid.sigmas[step + 1] - grid.sigmas[step]) * velocity
    assert np.abs(made.numpy() - WAN21.raw(np.array(x))).max() < BAR
    always = sample(nodes, graph, model, **steps)["samples"][0]
    assert (made - always).abs().max() > 1e-3


def test_a_range_is_counted_in_a_shift_of_its_own(nodes, models, model, listener):
    """At shift 8 half of the schedule is passed below the sigma .889, at shift 1 below .5: one step of six differs."""
    graph = CoreGraph(1, models, listener)
    text, clip = graph.text.positive, graph.clip_tokens
    steps = {"steps": 6, "shift": 8.0, "solver": "euler", "grid": "simple"}

    def made(start, **shift):
        positive = ranged(conditioning(text, clip, graph.streams), 0.0, start)
        return sample(nodes, graph, model, positive=positive, **steps, **shift)["samples"]

    counted = made(0.5, range_shift=1.0)
    assert (counted - made(0.5)).abs().max() > 1e-3
    assert torch.equal(counted, made(8 / 9))  # of shift 8: the sigma .5
    assert torch.equal(made(0.5, range_shift=8.0), made(0.5))


def test_a_batch_goes_on_after_what_is_finished(nodes, models, model, listener, monkeypatch, tmp_path):
    monkeypatch.setattr(load_pack().nodes.comfy_sampling.host, "resume_folder", lambda: tmp_path)
    graph = CoreGraph(2, models, listener)
    first = sample(nodes, graph, model)["samples"]
    graph.latent["samples"] = graph.latent["samples"].repeat(2, 1, 1, 1, 1)
    both, report = sample_and_report(nodes, graph, model)
    assert torch.equal(both["samples"][:1], first)
    assert any("goes on at segment 2 of 2" in note for note in json.loads(report)["notes"])
    again, report = sample_and_report(nodes, graph, model, resume=False)
    assert torch.equal(again["samples"], both["samples"])
    assert not any("before with the same inputs" in note for note in json.loads(report)["notes"])


def test_the_report_says_what_is_known(nodes, models, model, listener):
    graph = CoreGraph(1, models, listener)
    _, text = sample_and_report(nodes, graph, model, steps=2, range_shift=5.0, resume=False)
    report = json.loads(text)
    assert report["prompts"] is None
    assert report["settings"]["steps"] == 2
    assert report["scene"] == {"mode": "replacement", "range_shift": 5.0}
    run = report["run"]
    assert (run["width"], run["height"], run["frames"], run["segments"]) == (96, 64, 9, 1)
    assert list(report["model"]) == ["dit"]
    assert [phase["phase"] for phase in report["phases"]]
    (shown,) = nodes["Scail2Report"]({"report": text, "filename_prefix": "core"})
    assert shown == text


def entries(*ranges):
    streams = ComfyStreams()
    return [ComfyCondition(text=np.zeros((1, 4)), clip=None, streams=streams, start=a, end=b) for a, b in ranges]


def test_shares_of_the_schedule_are_noise_levels():
    """From ComfyUI's ModelSamplingDiscreteFlow at shift 8."""
    assert [percent_to_sigma(p, 8.0) for p in (-0.1, 0.0, 1.0, 1.2)] == [1.0, 1.0, 0.0, 0.0]
    assert percent_to_sigma(0.5, 8.0) == pytest.approx(4 / 4.5)
    assert percent_to_sigma(0.2, 1.0) == pytest.approx(0.8)


def test_each_step_has_its_condition():
    sigmas = simple_schedule(6, 8.0).sigmas[:-1]
    assert applying("positive", entries((None, None)), sigmas, 8.0) == [0] * 6
    cut = entries((0.0, 0.2 - 1e-5), (0.2, 0.7), (0.7 + 1e-5, 1.0))  # .2 is .9697, .7 is .7742
    assert applying("positive", cut, sigmas, 8.0) == [0, 0, 1, 1, 1, 2]
    in_the_gap = percent_to_sigma(0.2 - 0.5e-5, 8.0)
    assert applying("positive", cut, [in_the_gap], 8.0) in ([0], [1])


def test_a_step_with_no_condition_or_two_is_refused():
    sigmas = simple_schedule(6, 8.0).sigmas[:-1]
    with pytest.raises(RequestError, match="At step 5 of 6 .* no positive conditioning applies"):
        applying("positive", entries((0.0, 0.5)), sigmas, 8.0)
    with pytest.raises(RequestError, match="At step 1 of 6 .* 2 entries of the negative conditioning apply"):
        applying("negative", entries((None, None), (0.0, 1.0)), sigmas, 8.0)


def test_clips_of_a_batch_take_their_own_noise_and_features(nodes, models, model, listener):
    graph = CoreGraph(2, models, listener)
    first = sample(nodes, graph, model)["samples"]
    graph.latent["samples"] = graph.latent["samples"].repeat(2, 1, 1, 1, 1)
    both = sample(nodes, graph, model)["samples"]
    assert torch.equal(both[:1], first)
    graph.latent = {"samples": graph.latent["samples"][:1], "batch_index": [1]}  # as Latent From Batch leaves it
    second = sample(nodes, graph, model)["samples"]
    assert torch.equal(both[1:], second)
    positive = graph.inputs(model=model)["positive"]
    positive[0][0] = torch.cat([positive[0][0], -positive[0][0]])
    graph.latent = {"samples": torch.zeros_like(both)}
    mixed = sample(nodes, graph, model, positive=positive)["samples"]
    assert torch.equal(mixed[0], both[0])
    assert (mixed[1] - both[1]).abs().max() > 1e-3


def without(options, *names):
    return {key: value for key, value in options.items() if key not in names}


def test_what_is_missing_is_told_and_left_out(nodes, models, model, listener, caplog):
    """ComfyUI runs so too; test_scail2_core.py compares what comes of it."""
    graph = CoreGraph(1, models, listener)
    inputs = graph.inputs(model=model)
    ((text, options),) = inputs["positive"]
    bare = [[text, without(options, "clip_vision_output", "driving_mask_28ch", "ref_mask_28ch")]]
    with caplog.at_level(logging.WARNING, "scail2_mlx"):
        made = sample(nodes, graph, model, positive=bare)["samples"]
    assert torch.isfinite(made).all()
    told = [r.message for r in caplog.records if "conditioning lacks" in r.message]
    assert len(told) == 1
    assert "clip_vision_output, pose_video_mask, reference_image_mask:" in told[0]


def test_latents_of_our_sampler_lose_their_plan(nodes, models, model, listener):
    graph = CoreGraph(2, models, listener)
    graph.latent = sampled(nodes, 2)[1]
    assert "scail2_mlx" not in sample(nodes, graph, model)


UNLIKE = {
    "reference_latents": (lambda x: [x[0][..., :4]], r"'reference_latents' .* must be \[16, any, 8, 12\]"),
    "pose_video_latent": (lambda x: x.repeat(1, 1, 1, 2, 2), r"'pose_video_latent' .* must be \[16, any, 4, 6\]"),
    "driving_mask_28ch": (lambda x: x[:, :1], r"'driving_mask_28ch' .* must be \[28, 3, 4, 6\]"),
    "ref_mask_28ch": (lambda x: x[:, :2], r"'ref_mask_28ch' .* must be \[28, 4, 8, 12\]"),
    "clip_vision_output": (lambda x: SimpleNamespace(last_hidden_state=None), "no penultimate_hidden_states"),
    "area": (lambda x: (8, 8, 0, 0), r"has 'area' \(set by Conditioning \(Set Area\)\)"),
    "control": (lambda x: object(), "set by Apply ControlNet"),
}


@pytest.mark.parametrize("key", UNLIKE)
def test_conditioning_that_does_not_fit_is_refused(key, nodes, models, model, listener):
    graph = CoreGraph(1, models, listener)
    ((text, options),) = graph.inputs(model=model)["positive"]
    change, message = UNLIKE[key]
    with pytest.raises(Exception, match=message):
        sample(nodes, graph, model, positive=[[text, options | {key: change(options.get(key))}]])


def test_other_origins_are_refused(nodes, models, model, listener):
    graph = CoreGraph(0, models, listener)
    text = graph.inputs(model=model)["positive"][0][0]
    for side in ("positive", "negative"):
        with pytest.raises(Exception, match=f"connect the {side} output of WanSCAILToVideo"):
            sample(nodes, graph, model, **{side: [[text, {}]]})
    unused = sample(nodes, graph, model, negative=[[text, {}]], cfg=1.0, steps=1)
    assert unused["samples"].shape == graph.latent["samples"].shape


def test_text_of_another_width_is_refused(nodes, models, model, listener):
    graph = CoreGraph(1, models, listener)
    ((_, options),) = graph.inputs(model=model)["positive"]
    with pytest.raises(Exception, match="The text features are 4096 wide, but this model takes 64"):
        sample(nodes, graph, model, positive=[[torch.zeros(1, TEXT_TOKENS, 4096), options]])


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        ({"samples": torch.zeros(1, 4, 8, 12)}, r"must be \[16, frames, height, width\]"),
        ({"samples": torch.zeros(1, 16, 3, 8, 10)}, "width is 10 \\(80 pixels\\), but SCAIL-2 needs a multiple of 4"),
        ({"samples": torch.zeros(1, 16, 3, 8, 12), "noise_mask": torch.ones(1, 1, 1, 64, 96)}, "latent's own size"),
        ({"samples": torch.zeros(1, 16, 3, 8, 12), "noise_mask": torch.full((1, 1, 3, 8, 12), 0.5)}, "between 0 and 1"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latent, message, nodes, models, model, listener):
    graph = CoreGraph(1, models, listener)
    with pytest.raises(Exception, match=message):
        sample(nodes, graph, model, latent_image=latent)


def test_the_diffusion_model_alone_is_enough(nodes, models, model, listener):
    """As in a graph whose encoders and VAE are ComfyUI's."""
    graph = CoreGraph(1, models, listener)
    file = str(GOLDENS / "snapshot" / "dit.safetensors")
    handles = nodes["LoadScail2MLX"]({"snapshot": "only the files below", "precision": "auto", "dit": file})
    alone, text_encoder, _, vae = handles
    latent = sample(nodes, graph, alone)
    assert torch.equal(latent["samples"], sample(nodes, graph, model)["samples"])
    with pytest.raises(Exception, match="No VAE was given: name its file"):
        decoded(nodes, vae, latent)
    with pytest.raises(Exception, match="No text encoder was given: name its file"):
        nodes["Scail2T5Encode"]({"text_encoder": text_encoder, "prompt": "", "negative_prompt": ""})


def core_features(graph):
    """Return the sampler's inputs as ComfyUI's text encoder and CLIP would make them."""
    entries = (graph.inputs(model=None)[side] for side in ("positive", "negative"))
    text, negative = ([[features, {}]] for ((features, _),) in entries)
    vision = SimpleNamespace(penultimate_hidden_states=tensor(graph.clip_tokens))
    return {"text": text, "negative": negative, "clip_features": vision}


def test_our_sampler_takes_cores_features(nodes, models, listener):
    """Padded with zeros, as ComfyUI does it, they are the same numbers."""
    _, ours = sampled(nodes, 0)
    _, made = sampled(nodes, 0, **core_features(CoreGraph(0, models, listener)))
    assert torch.equal(made["samples"], ours["samples"])
    features = core_features(CoreGraph(1, models, listener)) | {"negative": None}
    assert torch.equal(sampled(nodes, 1, **features)[1]["samples"], sampled(nodes, 1)[1]["samples"])  # cfg 1


def test_cores_features_that_do_not_fit_are_refused(nodes, models, listener):
    graph = CoreGraph(0, models, listener)
    features = core_features(graph)
    whole = graph.inputs(model=None)["positive"]
    for changes, message in (
        ({"negative": None}, "connect one to 'negative', or set cfg to 1"),
        ({"text": features["text"] * 2}, "'text' holds 2 conditionings"),
        ({"negative": whole}, "'negative' comes from WanSCAILToVideo"),
        ({"clip_features": SimpleNamespace(penultimate_hidden_states=None)}, "connect CLIP Vision Encode"),
    ):
        with pytest.raises(Exception, match=message):
            sampled(nodes, 0, **features | changes)
    with pytest.raises(Exception, match="has a negative prompt of its own"):
        sampled(nodes, 0, negative=features["negative"])


def test_the_plan_has_only_the_phases_of_such_a_run(models):
    plan = plan_denoising(models.dit, LatentSize(21, 64, 112), 2)
    assert list(plan.phases) == ["load", "denoise"]
    assert (plan.job.width, plan.job.height, plan.job.frames, plan.job.references) == (896, 512, 81, 2)
