"""The probe's forecast, the doctor's checks, the bench's table: injected facts and timings, broken operations."""

import importlib
import itertools
import json
import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from support import GOLDENS

from benchmarks.torch_block import block_config, pair
from demo.pack import load_pack
from mlx_backend.cli.main import main
from mlx_backend.diagnostics.bench import Case, Plan, bench
from mlx_backend.diagnostics.checks import Check
from mlx_backend.diagnostics.doctor import conclude, examine, pass_flops
from mlx_backend.diagnostics.numerics import PRODUCTION, REDUCED, Operations, Scale, numeric_checks, scale_for
from mlx_backend.diagnostics.primitives import primitives
from mlx_backend.diagnostics.references import Packed, product_error, random_rows, sample
from mlx_backend.diagnostics.system import Streaming, disk_check, read_speed, system_checks
from mlx_backend.interface.errors import Cancelled, RequestError
from mlx_backend.interface.sizes import Scail2Config
from mlx_backend.models.attention import KeysValues
from mlx_backend.planning.ledger import dit_pass
from mlx_backend.runtime.machine import Machine, this_machine
from mlx_backend.runtime.probe import CPU_SIZE, Probe, Rate, duration, measure_rate, probe, tensor_units

M5_MAX = Machine(
    chip="Apple M5 Max",
    cores=18,
    system="Darwin",
    architecture="arm64",
    release=(26, 2),
    on_gpu=True,
    memory_bytes=128 << 30,
    working_set_bytes=115 << 30,
    mlx="0.32.4",
    wheel_tags=("py3-none-macosx_26_0_arm64",),
    tf32="0",
    python="3.12.1",
)
M4 = replace(M5_MAX, chip="Apple M4", memory_bytes=16 << 30, working_set_bytes=12 << 30, tf32=None)
FAST, SLOW = Rate(53e12, "bfloat16", 4096), Rate(15e12, "bfloat16", 4096)
GOOD = Operations()
TINY = Scale(
    rows=(70, 130),
    depth=64,
    heads=2,
    dtypes=(("float32", (128,)),),
    fused_rows=64,
    frames=((8, 8, 16),),
    on_gpu=False,
)

PLAIN = Scail2Config(
    dim=128,
    ffn_dim=256,
    freq_dim=64,
    num_heads=1,
    num_layers=2,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=64,
    clip_dim=64,
)


def never() -> None:
    """Nobody cancels."""


def probed(machine: Machine, rate: Rate) -> Probe:
    return Probe(machine, rate, tensor_units(machine, rate))


# The probe


def test_tensor_units_are_told_by_the_rate():
    assert tensor_units(M5_MAX, FAST).active is True
    assert tensor_units(M5_MAX, SLOW).active is False
    assert tensor_units(M4, SLOW).active is None
    assert tensor_units(replace(M5_MAX, chip="Apple M9"), FAST).active is None


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"release": (26, 1)}, "update macOS to 26.2 or later (this is 26.1)", "Homebrew"),
        ({"wheel_tags": ()}, "pip install -U --force-reinstall mlx mlx-metal", "update macOS"),
        ({"wheel_tags": ("py3-none-macosx_14_0_arm64",)}, "Homebrew", "update macOS"),
        ({}, "close other programs", "Homebrew"),
    ],
)
def test_what_keeps_tensor_units_idle_is_said(changes, said, unsaid):
    sentence = tensor_units(replace(M5_MAX, **changes), SLOW).sentence
    assert said in sentence
    assert unsaid not in sentence


def test_a_forecast_is_flops_over_the_rate():
    forecast = probed(M5_MAX, FAST).forecast(5.3e15, 6)
    assert forecast.seconds_per_pass == pytest.approx(100)
    assert forecast.seconds == pytest.approx(600)
    assert str(forecast) == "Expect 2 min for a pass and 10 min for 6 passes, at this rate."


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.042, "0.042 s"), (35, "35 s"), (89, "89 s"), (91, "2 min"), (5401, "1.5 h"), (400_000, "5 days")],
)
def test_durations_are_readable(seconds, said):
    assert duration(seconds) == said


def test_the_best_of_the_timings_counts():
    ticks = itertools.accumulate([0, 0, 0.2, 0, 0, 0.1, 0.2, 0, 0, 0, 0])  # the products take 0.2 and 0.1 s
    rate = measure_rate("float32", CPU_SIZE, lambda: next(ticks))
    assert rate == Rate(pytest.approx(2 * CPU_SIZE**3 / 0.1), "float32", CPU_SIZE)


def test_a_probe_of_this_machine_names_it():
    found = probe()
    assert not found.machine.on_gpu
    assert found.machine.chip in found.sentence
    assert 1e8 < found.rate.flops_per_s < 1e14


def test_facts_that_mlx_does_not_tell_are_none(monkeypatch):
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "x86_64"})
    machine = this_machine()
    assert machine.working_set_bytes is None
    assert machine.chip


def test_the_largest_runs_cost_what_they_were_computed_to():
    assert pass_flops(832, 480, on_gpu=True) == pytest.approx(2.53e15, rel=0.01)
    assert pass_flops(1280, 704, on_gpu=True) == pytest.approx(9.89e15, rel=0.01)


# The system


def verdicts(machine: Machine, rate: Rate = SLOW) -> dict[str, Check]:
    return {check.name: check for check in system_checks(probed(machine, rate), 100 << 30)}


def test_a_machine_that_is_set_up_well_passes():
    found = verdicts(M5_MAX, FAST)
    assert set(found) == {"MLX", "macOS", "TF32", "memory", "tensor units"}
    assert {check.verdict for check in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("machine", "name", "said"),
    [
        (replace(M5_MAX, tf32=None), "TF32", "MLX_ENABLE_TF32=0"),
        (replace(M5_MAX, release=(26, 1)), "macOS", "26.2"),
        (replace(M4, release=(14, 5)), "macOS", "15 or later"),
        (replace(M4, memory_bytes=8 << 30), "memory", "Less than 16 GB"),
        (replace(M4, memory_bytes=None), "memory", "does not tell"),
        (M5_MAX, "tensor units", "3 times faster"),
    ],
)
def test_what_is_amiss_is_said(machine, name, said):
    check = verdicts(machine)[name]
    assert check.verdict == "note"
    assert said in check.sentence


def test_chips_without_tensor_units_need_no_variable():
    assert verdicts(M4)["TF32"].verdict == "ok"


def test_a_disk_is_fast_enough_when_a_block_is_read_while_one_computes():
    fast = disk_check(5e9, Streaming(int(0.8e9), 4.0))
    assert (fast.verdict, fast.error) == ("ok", pytest.approx(0.04))
    slow = disk_check(0.1e9, Streaming(int(0.8e9), 4.0))
    assert slow.verdict == "note"
    assert "2.0 times as long" in slow.sentence


def test_disk_speed_is_that_of_the_largest_file(tmp_path):
    (tmp_path / "large.safetensors").write_bytes(bytes(20 << 20))
    (tmp_path / "config.json").write_text("{}")
    ticks = itertools.count()
    assert read_speed(tmp_path, lambda: float(next(ticks))) == pytest.approx(3 * (16 << 20) / 4)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RequestError, match="name the folder of a model"):
        read_speed(tmp_path)


# The numbers


def test_all_operations_are_right_here():
    found = list(numeric_checks(TINY, Operations(), never))
    assert {check.verdict for check in found} == {"ok"}, [str(check) for check in found]
    assert len(found) == 2 + 4 + 1 + 2 * 2 + 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_to_half_precision_is_no_fault(dtype):
    """Sums as long as the model's; on the CPU, whose kernels round more than a GPU's."""
    scale = replace(TINY, rows=(200,), depth=1024, dtypes=((dtype, (1024,)),), on_gpu=True)
    found = {check.name: check for check in numeric_checks(scale, replace(GOOD, quantized_matmul=unpacked), never)}
    assert {check.verdict for check in found.values()} == {"ok"}, list(map(str, found.values()))
    assert all(check.error > 1e-4 for name, check in found.items() if dtype in name)


def unpacked(x, packed):
    """MLX's quantized_matmul on the CPU sums in half precision, which is a fault of its own."""
    return (x.astype(mx.float32) @ mx.array(packed.unpacked()).T).astype(x.dtype)


def wrong_row(work):
    """Return the same operation with one row of the result, which no sample takes, given the content of another."""

    def broken(*arguments):
        made = work(*arguments)
        rows = mx.arange(len(made))
        return made[mx.where(rows == 41, 7, rows)]

    return broken


def scaled(work):
    return lambda *arguments: work(*arguments) * 1.001


def with_nan(work):
    return lambda *arguments: work(*arguments) * mx.array(float("nan"))


@pytest.mark.parametrize("breaking", [wrong_row, scaled, with_nan])
@pytest.mark.parametrize(
    ("field", "name"), [("product", "dense products"), ("packed_product", "products with"), ("pad", "concatenation")]
)
def test_a_broken_operation_is_found(breaking, field, name):
    broken = replace(GOOD, **{field: breaking(getattr(GOOD, field))})
    for check in numeric_checks(TINY, broken, never):
        assert check.verdict == ("fault" if check.name.startswith(name) else "ok"), str(check)


@pytest.mark.parametrize("breaking", [scaled, with_nan])
@pytest.mark.parametrize(("field", "name"), [("attention", "attention"), ("convolution", "convolution")])
def test_broken_attention_and_convolution_are_found(breaking, field, name):
    if breaking is scaled:
        breaking = lambda work: lambda *arguments: work(*arguments) * 1.01  # noqa: E731 - above the bar of TF32
    broken = replace(GOOD, **{field: breaking(getattr(GOOD, field))})
    for check in numeric_checks(TINY, broken, never):
        assert check.verdict == ("fault" if check.name.startswith(name) else "ok"), str(check)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_that_are_left_out_are_found(dtype):
    """As where a kernel counts keys in 16 bits; here the last tenth."""
    scale = replace(TINY, rows=(2000,), heads=1, dtypes=((dtype, (64,)),), frames=(), fused_rows=16)
    broken = replace(
        GOOD, attention=lambda q, seen: KeysValues(seen.keys[..., :1800, :], seen.values[..., :1800, :]).attend(q)
    )
    found = [check for check in numeric_checks(scale, broken, never) if check.name.startswith("attention")]
    assert [check.verdict for check in found] == ["fault"]
    assert found[0].error > 2 * found[0].bar


def test_a_product_that_nobody_uses_is_no_fault():
    broken = replace(GOOD, quantized_matmul=lambda x, packed: mx.zeros((len(x), len(packed.weight))))
    found = {check.name: check.verdict for check in numeric_checks(TINY, broken, never)}
    assert found.pop("quantized_matmul, float32, 64 rows") == "note"
    assert set(found.values()) == {"ok"}


def test_a_result_of_another_shape_is_wrong():
    x = mx.ones((40, 64))
    assert product_error(mx.ones((39, 8)), x, np.ones((8, 64), np.float32)) == math.inf


@pytest.mark.parametrize("limit", [1 << 15, 1 << 16])
def test_a_row_that_repeats_where_a_count_wraps_is_found(limit):
    """The kernel faults that this is for: row 32,768 + i is given the content of row i."""
    rows, weight = limit + 300, mx.random.normal((8, 64))
    x = random_rows(rows, 64, "float32")
    wrapped = (x @ weight.T)[mx.arange(rows) % limit]
    assert product_error(x @ weight.T, x, np.array(weight)) < 1e-5
    assert product_error(wrapped, x, np.array(weight)) > 0.5


def test_rows_around_the_limits_are_sampled():
    assert {0, 32767, 32768, 65535, 65536, 95919} <= set(sample(95_920, 16).tolist())
    assert sample(5, 16).max() == 4


@pytest.mark.parametrize("bits", [4, 8])
def test_unpacking_by_numpy_is_mlx_s(bits):
    packed = Packed.of(mx.random.normal((8, 128)), bits)
    theirs = mx.dequantize(packed.weight, packed.scales, packed.biases, group_size=64, bits=bits)
    assert np.allclose(packed.unpacked(), np.array(theirs), atol=1e-6)


def test_row_counts_follow_the_memory():
    assert scale_for(replace(M4, on_gpu=False)) == REDUCED
    assert scale_for(M5_MAX) == PRODUCTION
    assert scale_for(replace(M4, working_set_bytes=6 << 30)).rows == PRODUCTION.rows[:2]
    assert scale_for(replace(M4, working_set_bytes=1 << 30)).rows == PRODUCTION.rows[:1]


def test_dispatches_stay_below_the_watchdog():
    for rows in PRODUCTION.rows:
        assert 2 * rows * PRODUCTION.depth * 13824 < 4e12
        assert rows * 13824 < 1 << 31


# The doctor


def test_a_fault_at_many_rows_leaves_smaller_sizes_safe():
    fault = Check("attention, 95,920 keys", "error 1", "fault", "Wrong.", 1.0, 0.03, rows=95_920)
    sizes = conclude(probed(M5_MAX, FAST), [fault], PRODUCTION)[1:]
    assert [line.split(",")[0] for line in sizes if "NOT SAFE" in line] == ["1280x704"]
    everywhere = replace(fault, rows=0)
    assert sum("NOT SAFE" in line for line in conclude(probed(M5_MAX, FAST), [everywhere], PRODUCTION)) == 3


def test_conclusions_hold_the_forecast():
    lines = conclude(probed(M5_MAX, FAST), [], PRODUCTION)
    assert (
        "832x480, 81 frames: numbers safe. At least 5 min distilled (6 passes), 64 min in full (80 passes)" in lines[1]
    )
    small = conclude(probed(M4, SLOW), [], replace(PRODUCTION, rows=PRODUCTION.rows[:1]))
    assert "memory is too small" in small[3]


def test_a_report_says_and_serialises_everything():
    told = []
    broken = replace(GOOD, product=with_nan(GOOD.product))
    report = examine(None, never, told.append, broken, TINY)
    assert not report.is_safe
    assert tuple(told) == report.checks
    made = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert made["safe"] is False
    assert [check["error"] for check in made["checks"] if check["verdict"] == "fault"] == [None, None]
    assert "[FAULT] dense products, float32, 70 rows" in str(report)
    assert examine(None, never, None, GOOD, TINY).is_safe


def test_an_examination_can_be_cancelled():
    def stop():
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        examine(None, stop, scale=TINY)


def test_the_command_fails_where_numbers_are_wrong(capsys, monkeypatch):
    monkeypatch.setattr("mlx_backend.diagnostics.doctor.scale_for", lambda machine: TINY)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["safe"] is True
    monkeypatch.setattr(
        "mlx_backend.diagnostics.doctor.Operations", lambda: replace(GOOD, product=scaled(GOOD.product))
    )
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "[FAULT]" in said.out
    assert "NOT SAFE" in said.out
    assert "wrong numbers" in said.err


# The bench


def test_the_bench_measures_every_kind_of_pass():
    told = []
    rows = bench(Plan((Case(PLAIN, 1),), 2), never, told.append)
    assert tuple(told) == rows
    assert [row.against for row in rows] == ["primitives", "float32", "float32", "float32"]
    for row in rows:
        made = row.as_json()
        assert {"name", "flops_per_s", "gemm_flops_per_s", "ratio", "peak_bytes"} <= made.keys()
        assert min(made[key] for key in ("flops_per_s", "gemm_flops_per_s", "ratio", "peak_bytes")) > 0
        assert ("MISSED" in str(row)) == (row.ratio > row.bar)


def test_the_command_prints_a_table_or_json(capsys, monkeypatch):
    monkeypatch.setattr("mlx_backend.diagnostics.bench.QUICK", Plan((Case(PLAIN, 1),), 9))
    assert main(["bench", "--quick", "--rounds", "1", "--json"]) == 0
    assert [row["bar"] for row in json.loads(capsys.readouterr().out)] == [1.10, 1.10, 1.25, 1.25]
    assert main(["bench", "--quick", "--rounds", "1", "--cpu-time"]) == 0
    said = capsys.readouterr().out
    assert "processor time, medians of 1 interleaved rounds" in said
    assert "dim 128, 864 tokens, float32, streamed" in said
    assert main(["bench", "--quick", "--dim", "5120"]) == 2
    assert "add --full" in capsys.readouterr().err


def test_primitives_cover_the_ledger_s_arithmetic():
    ops = dit_pass(PLAIN, Case(PLAIN, 4).tokens, on_gpu=False, compute="float32")
    alone = primitives(ops, PLAIN)
    counted = sum(op.flops for op in ops if op.kind in ("product", "attention", "norm", "rotation"))
    gelu = sum(op.flops for op in ops if op.name.endswith("ffn.1"))
    assert sum(p.flops * p.count for p in alone) == counted + gelu
    for primitive in alone:
        primitive.work()


# The node


def test_the_node_returns_the_report_and_shows_it(nodes, monkeypatch, caplog):
    caplog.set_level("INFO", "scail2_mlx")  # what is shown under a node is logged too
    doctor = importlib.import_module(f"{load_pack().__name__}.mlx_backend.diagnostics.doctor")
    monkeypatch.setattr(doctor, "scale_for", lambda machine: TINY)
    (report,) = nodes["Scail2Doctor"]({"snapshot": "do not measure the disk"})
    assert "[ok] dense products, float32, 70 rows" in report
    assert "832x480, 81 frames: numbers safe" in report
    assert report in caplog.messages


def test_the_node_examines_the_rest_where_a_folder_is_too_small_to_measure(nodes, monkeypatch, caplog):
    doctor = importlib.import_module(f"{load_pack().__name__}.mlx_backend.diagnostics.doctor")
    monkeypatch.setattr(doctor, "scale_for", lambda machine: TINY)
    (report,) = nodes["Scail2Doctor"]({"snapshot": str(GOLDENS / "snapshot")})
    assert "[ok] dense products, float32, 70 rows" in report
    assert "holds no file large enough" in caplog.text


# PyTorch's block


def test_our_block_is_pytorch_s():
    """The reference of benchmarks/torch_block.py; two row chunks and two heads."""
    assert pair(block_config(256, 512), 600)[2] < 1e-5
