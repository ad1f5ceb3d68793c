"""The proof of a GPU at its toy size, on the CPU: every check finds something, and what is broken is found."""

import json
import re
import subprocess
import sys

import pytest
from support import ROOT

from benchmarks.gpu_proof.__main__ import CHECKS, main
from benchmarks.gpu_proof.child import apart, work
from benchmarks.gpu_proof.computing import ways
from benchmarks.gpu_proof.rows import Row, report, verdict
from benchmarks.gpu_proof.sizes import full, toy
from mlx_backend.members.scail2 import MEMBER
from mlx_backend.models.attention import SelfAttention

ROW = Row("ways", "streamed", "differs by 1", "right")
DOC = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
# What tells that a file takes another way on a GPU.
ON_A_GPU = re.compile(r"\bon_gpu\b|mx\.gpu\b|mx\.metal\b|mx\.Device\(mx\.cpu\)|mx\.cpu:")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_finds_nothing_wrong_on_the_cpu(name, tmp_path, capsys):
    written = tmp_path / "rows"
    assert work(name, CHECKS[name][0], toy(), 10, written) == 0, capsys.readouterr().err
    rows = [Row.read(json.loads(line)) for line in written.read_text().splitlines()]
    assert len(rows) > 1
    assert {row.check for row in rows} == {name}
    assert not [str(row) for row in rows if row.mark in ("WRONG", "FAILED")]


def test_a_wrong_way_is_found(monkeypatch):
    """Groups of heads that come out in the wrong order."""

    def swapped(self, *arguments, right=SelfAttention._in_groups):
        return [parts[::-1] for parts in right(self, *arguments)]

    monkeypatch.setattr(SelfAttention, "_in_groups", swapped)
    wrong = [row.name for row in ways(toy(), 1) if row.mark == "WRONG"]
    assert wrong == ["attention in 2 groups of heads, float32"]


def test_a_check_that_raises_keeps_its_rows(tmp_path, capsys):
    def broken(sizes, seconds):
        yield ROW
        raise ValueError("no such kernel")

    assert work("ways", broken, toy(), 1, tmp_path / "rows") == 1
    assert Row.read(json.loads((tmp_path / "rows").read_text())) == ROW
    assert "no such kernel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.abort()", "ended by SIGABRT"),
        ("time.sleep(60)", "not finished in"),
        ("sys.exit('out of memory')", "exit code 1: out of memory"),
    ],
)
def test_a_process_that_ends_costs_its_rows_alone(end, told):
    code = f"import os, sys, time; open(sys.argv[2], 'w').write({json.dumps(ROW.as_json())!r} + '\\n'); {end}"
    first, last = apart([sys.executable, "-c", code], "ways", 3 if "sleep" in end else 60)
    assert first == ROW
    assert last.mark == "FAILED"
    assert told in last.found


def test_the_command_writes_a_table_and_a_verdict_and_overwrites_nothing(tmp_path, capsys, monkeypatch):
    output = tmp_path / "proof.md"
    command = ["gpu_proof", "--only", "doctor", "--toy", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0
    text = output.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "| doctor | attention, float32, 65 queries, 65 keys |" in text
    assert "nothing is said of a GPU" in text
    assert [path.name for path in tmp_path.iterdir()] == ["proof.md"]
    with pytest.raises(SystemExit):
        main()
    assert "not overwritten" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == text


def test_the_verdict_says_the_worst():
    wrong, failed = Row("vae", "tiles", "differ", "WRONG"), Row("block", "its end", "SIGABRT", "FAILED")
    assert "Safe" in verdict([ROW], on_gpu=True, left=0)
    assert "nothing is said of a GPU" in verdict([ROW], on_gpu=False, left=0)
    assert "Not proved" in verdict([ROW, failed], on_gpu=True, left=0)
    assert "vae, tiles" in verdict([ROW, failed, wrong], on_gpu=True, left=0)
    assert "2 checks are still to come" in verdict([ROW], on_gpu=True, left=2)


def test_a_row_stays_a_line_of_the_table():
    lines = report("here", [Row("ways", "a|b", "one\ntwo", "note")], "good").splitlines()
    assert "| ways | a/b | one two | note |" in lines


def test_all_checks_take_twelve_minutes_at_most_and_a_pass_has_the_tokens_of_a_real_run():
    assert sum(seconds for _, seconds in CHECKS.values()) <= 12 * 60
    config, size = full().block
    assert (config.dim, MEMBER.tokens(size, 1).sequence) == (5120, 42_510)


def test_the_doc_names_every_file_that_takes_another_way_on_a_gpu():
    backend = ROOT / "mlx_backend"
    files = {p.relative_to(backend).as_posix() for p in backend.rglob("*.py") if ON_A_GPU.search(p.read_text("utf-8"))}
    assert len(files) > 10
    assert [name for name in sorted(files) if f"`{name}`" not in DOC] == []


def test_the_doc_tells_every_check_and_its_time():
    told = dict(re.findall(r"^\| (\w+) \| .* \| (\d+) \|$", DOC, re.MULTILINE))
    assert told == {name: str(seconds) for name, (_, seconds) in CHECKS.items()}
    covering = re.findall(r"^\| `[^|]* \| [^|]* \| ([^|]*) \|$", DOC, re.MULTILINE)
    assert {name for cell in covering for name in cell.split(", ")} == set(CHECKS)


@pytest.mark.parametrize("how", ["resident_growth", "_watched"])
def test_what_a_process_takes_is_seen_with_and_without_proc(how):
    code = f"import numpy; from benchmarks import machine; print(machine.{how}(lambda: numpy.ones(25 << 20).sum()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 190 << 20 < int(done.stdout) < 450 << 20
