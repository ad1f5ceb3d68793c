"""What is planned for real sizes: residency, tiles, refusals that say what would fit, and the command that shows it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from support import GOLDENS, ROOT, a_job

from mlx_backend.cli.main import BAD_INPUT, main
from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.machine import CHIPS, GIB, memory_budget, usual_working_set
from mlx_backend.planning.memory import CPU, METAL, Backend
from mlx_backend.planning.planner import HEAD_GROUPS, PHASES, TILES, ModelSizes, check_fits, choose, predict
from mlx_backend.planning.storage import Storage
from mlx_backend.planning.weights import weights

SCAIL2 = ModelSizes()
DIT = weights(SCAIL2.dit)
SMALL, LARGE = a_job(width=832, height=480), a_job(width=1280, height=704)
GB = 1_000_000_000


def budget(gigabytes):
    return memory_budget(gigabytes * GIB, usual_working_set(gigabytes * GIB))


def packed(bits):
    return ModelSizes(dit_storage=Storage(bits=bits))


def test_the_budget_is_the_smaller_share():
    assert memory_budget(100, 50) == 45
    assert memory_budget(100, 90) == 75
    assert memory_budget(100) == 75
    # What llama.cpp logged on such Macs, in MiB.
    for gigabytes, logged in {16: 10922.67, 32: 21845.34, 64: 49152.00}.items():
        assert usual_working_set(gigabytes * GIB) / 2**20 == pytest.approx(logged, abs=0.01)


def test_weights_of_the_full_size_are_those_of_the_files():
    assert DIT.bytes(Storage()) == 2 * 16_395_544_384
    assert DIT.block_bytes(Storage()) == pytest.approx(0.81 * GB, rel=0.01)
    # benchmarks/RESULTS.md: 480 Linears packed in 4 bits, groups of 64, the other tensors bf16.
    assert DIT.bytes(Storage(bits=4)) == 9_578_237_568


def test_the_prediction_agrees_with_the_one_full_size_measurement():
    """benchmarks/RESULTS.md: DiT alone, 4 bits, 64x64 pixels, 5 frames, on a CPU; 10,455,940,828 bytes at most."""
    job = a_job(width=64, height=64, frames=5)
    plan = predict(packed(4), job, CPU, "resident")
    assert plan.phases["denoise"].bytes - SCAIL2.vae_bytes == pytest.approx(10_455_940_828, rel=0.01)


def test_full_precision_fits_a_small_mac_only_streamed():
    resident, streamed = (predict(SCAIL2, SMALL, METAL, how) for how in ("resident", "streamed"))
    assert resident.peak_bytes > 33 * GB
    assert streamed.peak_bytes < 7 * GB
    saved = DIT.bytes(Storage()) - DIT.rest_bytes(Storage())
    assert resident.phases["load"].bytes - streamed.phases["load"].bytes == saved
    plan = choose(SCAIL2, SMALL, budget(16))
    assert (plan.residency, plan.tile) == ("streamed", 0)
    check_fits(plan, budget(16))


def test_the_mildest_plan_that_fits_is_chosen():
    assert choose(SCAIL2, SMALL, budget(64)).residency == "resident"
    large = choose(SCAIL2, LARGE, budget(24))
    assert large.residency == "streamed"
    assert large.tile in TILES[1:]
    whole = predict(SCAIL2, LARGE, METAL, "streamed")
    assert whole.needed_bytes > budget(24) >= large.needed_bytes
    assert predict(SCAIL2, LARGE, METAL, "streamed", TILES[TILES.index(large.tile) - 1]).needed_bytes > budget(24)
    four_bits = choose(packed(4), SMALL, budget(32))
    assert four_bits.residency == "resident"


def test_what_the_user_sets_is_kept():
    plan = choose(SCAIL2, SMALL, budget(128), residency="streamed", tile=256)
    assert (plan.residency, plan.tile) == ("streamed", 256)
    forced = choose(SCAIL2, SMALL, budget(16), residency="resident")
    assert forced.residency == "resident"
    with pytest.raises(RequestError, match="let the blocks be streamed"):
        check_fits(forced, budget(16))


@pytest.mark.parametrize(("change", "job"), [("segments of", LARGE), ("pixels", LARGE), ("packed in 4 bits", SMALL)])
def test_a_refusal_names_what_would_fit_and_it_does(change, job):
    model, allowed = SCAIL2, budget(14)
    if change == "packed in 4 bits":  # blocks of 0.8 GB each are too much then, packed ones are not
        plan = predict(model, job, METAL, "streamed", 128)
        allowed = choose(packed(4), job, 0).needed_bytes
        assert plan.needed_bytes > allowed
    plan = choose(model, job, allowed)
    with pytest.raises(RequestError) as refusal:
        check_fits(plan, allowed)
    said = str(refusal.value)
    assert f"{plan.needed_bytes / GB:.1f} GB" in said
    assert f"{allowed / GB:.1f} GB may be used" in said
    assert plan.largest_phase in said
    if change == "segments of":
        length = re.search(r"use segments of (\d+) frames", said)[1]
        other = a_job(width=job.width, height=job.height, segment_length=int(length))
    elif change == "pixels":
        width, height = re.search(r"use (\d+) x (\d+) pixels", said).groups()
        other = a_job(width=int(width), height=int(height))
    else:
        assert "use weights packed in 4 bits" in said
        model, other = packed(4), job
    check_fits(choose(model, other, allowed), allowed)


def test_loras_stay_in_memory_beside_streamed_blocks():
    lora = replace(SCAIL2, lora_bytes=718_000_000)  # rank 64 on every Linear of the blocks, bf16
    plain, added = (predict(model, SMALL, METAL, "streamed") for model in (SCAIL2, lora))
    grown = {name: added.phases[name].bytes - plain.phases[name].bytes for name in PHASES}
    assert grown == {name: 718_000_000 if name in ("load", "encode", "denoise") else 0 for name in PHASES}


def test_nothing_fits_nothing():
    plan = choose(SCAIL2, SMALL, 1000)
    assert plan.residency == "streamed"
    with pytest.raises(RequestError, match="a machine with more memory"):
        check_fits(plan, 1000)


@pytest.mark.parametrize("phase", PHASES)
def test_more_work_never_needs_less_memory(phase):
    def size(job, model=SCAIL2, how="streamed", backend=METAL, tile=0):
        return predict(model, job, backend, how, tile).phases[phase].bytes

    assert size(LARGE) >= size(SMALL)
    assert size(a_job(width=832, height=480, references=3)) >= size(SMALL)
    assert size(SMALL, how="resident") >= size(SMALL)
    assert size(SMALL, packed(4)) <= size(SMALL, packed(8))
    assert size(LARGE, tile=512) <= size(LARGE)
    assert size(a_job(width=832, height=480, frames=41)) <= size(SMALL)


def test_decoding_is_flat_in_time_and_denoising_linear_in_tokens():
    def decode(frames):
        return predict(SCAIL2, a_job(width=832, height=480, frames=frames), METAL, "streamed").phases["decode"].bytes

    latents = 2 * 16 * 10 * 60 * 104 * 4
    assert decode(81) - decode(41) == latents

    def work(job):
        plan = predict(packed(4), job, METAL, "streamed")
        weights = sum(size for name, size in plan.phases["denoise"].terms if name.startswith(("weights", "blocks")))
        return (plan.phases["denoise"].bytes - weights) / SCAIL2.tokens(job.longest, job.references).sequence

    assert 0.8 * work(SMALL) < work(LARGE) <= work(SMALL)  # per token: a chunk has fewer rows where there are more


def test_float16_products_of_bf16_weights_need_a_copy():
    half = predict(SCAIL2, SMALL, Backend(on_gpu=True, compute="float16"), "streamed")
    assert half.phases["denoise"].bytes > predict(SCAIL2, SMALL, METAL, "streamed").phases["denoise"].bytes


def test_the_cpu_needs_more_than_a_gpu():
    """It writes scores and patches out, and computes in float32."""
    assert predict(SCAIL2, SMALL, CPU, "streamed").peak_bytes > predict(SCAIL2, SMALL, METAL, "streamed").peak_bytes


def plan_json(capsys, *options):
    assert main(["plan", "--width", "832", "--height", "480", "--frames", "81", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_gives_numbers_for_programs(capsys):
    found = plan_json(capsys)
    assert set(found["phases"]) == set(PHASES)
    assert found["peak_bytes"] == max(found["phases"].values())
    assert [row["memory_bytes"] // GIB for row in found["machines"]] == [16, 24, 32, 64, 128]
    assert all(row["fits"] for row in found["machines"])
    assert found["tokens"] == 42_510
    assert found["flops"]["pass"] / 1e15 == pytest.approx(2.53, abs=0.005)
    assert sum(found["flops"]["pass_by_part"].values()) == found["flops"]["pass"]
    assert {row["chip"] for row in found["estimates"]} == {chip.name for chip in CHIPS}
    for name, terms in found["terms"].items():
        assert sum(terms.values()) == found["phases"][name]


def test_the_command_plans_packed_weights_and_one_machine(capsys):
    found = plan_json(capsys, "--bits", "4", "--memory", "32")
    assert [row["memory_bytes"] for row in found["machines"]] == [32 * GIB]
    assert found["residency"] == "resident"
    assert found["phases"]["load"] < 11 * GB
    assert found["needed_bytes"] < found["budget_bytes"]


def test_the_table_says_what_is_predicted_and_what_does_not_fit(capsys):
    assert main(["plan", "--width", "1280", "--height", "704", "--memory", "16"]) == 0
    said = capsys.readouterr().out
    assert "none of it has been measured on a Mac" in said
    assert "does not fit" in said
    assert "9.90 PFLOP" in said
    assert "M4 Max" in said


def test_the_sizes_of_a_snapshot(capsys):
    found = plan_json(capsys, "--model", str(GOLDENS / "snapshot"))
    assert found["phases"]["load"] < GB // 10


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--width", "830", "multiple of 32"),
        ("--frames", "0", "0 frames"),
        ("--segment-length", "80", "4k+1"),
        ("--references", "0", "at least 1"),
        ("--memory", "nan", "--memory"),
        ("--model", "nowhere", "nowhere"),
    ],
)
def test_what_cannot_be_planned_is_refused(option, value, said, capsys):
    assert main(["plan", option, value]) == BAD_INPUT
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["torch", "mlx"])
def test_the_command_needs_no_torch_and_says_where_mlx_is_missing(missing):
    """The networks whose sizes are planned with are MLX's."""
    code = (
        "import sys\n"
        f"for name in ({missing!r}, {missing + '.core'!r}): sys.modules[name] = None\n"
        "from mlx_backend.cli.main import main\n"
        "sys.exit(main(['plan', '--width', '832', '--height', '480', '--frames', '81']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if missing == "torch":
        assert done.returncode == 0, done.stderr
        assert "42,510 tokens" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert "pip install" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_small_chunks_are_the_last_way_to_fit():
    job = a_job(width=832, height=480, frames=81)
    usual = choose(SCAIL2, job, 10**15, residency="streamed")
    assert usual.backend == METAL
    leanest = min(
        (predict(SCAIL2, job, replace(METAL, head_groups=groups), "streamed", 128) for groups in (1, *HEAD_GROUPS)),
        key=lambda plan: plan.needed_bytes,
    )
    chosen = choose(SCAIL2, job, leanest.needed_bytes - 1)
    assert chosen.needed_bytes < leanest.needed_bytes
    assert chosen.backend.dispatch_flops < METAL.dispatch_flops


def test_groups_of_heads_are_taken_only_where_all_at_once_do_not_fit():
    whole = predict(SCAIL2, LARGE, METAL, "streamed", 512)
    assert choose(SCAIL2, LARGE, whole.needed_bytes, residency="streamed", tile=512) == whole
    fewer = choose(SCAIL2, LARGE, whole.needed_bytes - 1, residency="streamed", tile=512)
    assert fewer.backend == replace(METAL, head_groups=HEAD_GROUPS[0])
    small_mac = choose(SCAIL2, LARGE, budget(16))
    assert small_mac.backend.head_groups > 1
    check_fits(small_mac, budget(16))


def test_heads_that_cannot_be_divided_stay_together():
    odd = replace(SCAIL2, dit=replace(SCAIL2.dit, num_heads=5))
    assert choose(odd, LARGE, 1000).backend.head_groups == 1


def test_the_result_counts_from_decoding_on():
    plan = predict(SCAIL2, LARGE, METAL, "streamed", 512)
    clip = LARGE.frames * LARGE.width * LARGE.height * 3 * 4
    around = {name: plan.phase_bytes(name) - plan.phases[name].bytes for name in PHASES}
    assert {name for name in PHASES if around[name] == around["load"] + clip} == {"decode"}
