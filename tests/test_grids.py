"""ComfyUI's grid "simple" beside upstream's: by hand, against ComfyUI's own code, and under every solver."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from support import a_sampling

from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.variants import GRIDS, SOLVERS
from mlx_backend.sampling.schedules import simple_schedule
from mlx_backend.sampling.solvers import make_solver

EPS = 2.0**-24  # what rounding to float32 may change, relative
STEPS = (1, 2, 3, 4, 6, 7, 8, 16, 40, 999, 1000)
SHIFTS = (0.01, 0.3, 1.0, 3.0, 3.3, 5.0, 8.0, 100.0)
TARGET = (0.3, -1.2, 0.7)
START = (0.5, -0.25, 1.75)
# Run in ComfyUI's folder: its sigmas and timesteps, its shift for SCAIL-2, and where its Euler goes on its grid.
COMFY = """
import json, sys
wanted = json.loads(sys.argv[1])
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import torch
import comfy.model_sampling, comfy.samplers, comfy.supported_models
from comfy.k_diffusion.sampling import sample_euler

class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    pass

target = torch.tensor(wanted["target"])[None]
def picture(x, sigma):
    t = sampling.timestep(sigma)
    velocity = 0.5 * torch.tanh(x) + (x - target) / (t / 1000 + 0.2)
    return sampling.calculate_denoised(sigma, velocity, x)

grids = []
for shift in wanted["shifts"]:
    sampling = Sampling()
    sampling.set_parameters(shift=shift)
    for steps in wanted["steps"]:
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        end = sample_euler(picture, torch.tensor(wanted["start"])[None], sigmas, disable=True)
        grids.append([steps, shift, sigmas.tolist(), sampling.timestep(sigmas[:-1]).tolist(), end[0].tolist()])
print(json.dumps([comfy.supported_models.WAN21_SCAIL2.sampling_settings["shift"], grids]))
"""


@pytest.mark.parametrize(
    ("steps", "shift", "sigmas"),
    [
        # levels 1000, 834, 667, 500, 334, 167 of 1000: 6 does not divide 1000, and the strides are rounded down
        (6, 8, [1, 6672 / 6838, 5336 / 5669, 4000 / 4500, 2672 / 3338, 1336 / 2169, 0]),
        (6, 3, [1, 2502 / 2668, 2001 / 2334, 1500 / 2000, 1002 / 1668, 501 / 1334, 0]),
        (4, 1, [1, 0.75, 0.5, 0.25, 0]),
        (1, 5, [1, 0]),
    ],
)
def test_simple_by_hand(steps, shift, sigmas):
    grid = simple_schedule(steps, shift)
    assert grid.sigmas == tuple(float(np.float32(sigma)) for sigma in sigmas)
    np.testing.assert_allclose(grid.timesteps, np.multiply(sigmas[:-1], 1000), rtol=2 * EPS)


def test_its_timesteps_are_not_whole():
    assert [round(t, 2) for t in simple_schedule(6, 8).timesteps] == [1000, 975.72, 941.26, 888.89, 800.48, 615.95]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", SHIFTS)
def test_it_starts_at_one_and_falls(steps, shift):
    sigmas = simple_schedule(steps, shift).sigmas
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert all(after < before for before, after in zip(sigmas, sigmas[1:], strict=False))


@pytest.mark.comfyui
def test_simple_is_comfyuis():
    """Sigmas, timesteps, and the path of its own Euler in float32 under a made-up velocity."""
    wanted = json.dumps({"steps": STEPS, "shifts": SHIFTS, "target": TARGET, "start": START})
    done = subprocess.run(
        [os.environ.get("COMFYUI_PYTHON", sys.executable), "-c", COMFY, wanted],
        cwd=os.environ["COMFYUI_DIR"],
        env=os.environ | {"PYTHONPATH": os.environ["COMFYUI_DIR"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shift_of_scail2, grids = json.loads(done.stdout.splitlines()[-1])
    assert shift_of_scail2 == 8  # where no node changes it, as in the template; the preset "fast" has it
    assert len(grids) == len(STEPS) * len(SHIFTS)
    for steps, shift, sigmas, timesteps, end in grids:
        solver = make_solver("euler", steps, shift, "simple")
        # ComfyUI rounds six times on the way to a sigma; below a shift of 1 it also cancels in 1 + (shift - 1) t
        bar = 6 * EPS * max(1, 1 / shift)
        np.testing.assert_allclose(solver.schedule.sigmas, sigmas, rtol=bar, atol=0)
        np.testing.assert_allclose(solver.schedule.timesteps, timesteps, rtol=bar + EPS, atol=0)
        x = np.array(START)
        for i, t in enumerate(solver.schedule.timesteps):
            solver, x = solver.step(i, 0.5 * np.tanh(x) + (x - TARGET) / (t / 1000 + 0.2), x)
        # ours goes in float64; ComfyUI's path rounds a few times per step, of values up to about 2
        np.testing.assert_allclose(x, end, atol=2 * bar + 8 * EPS * math.sqrt(steps), rtol=0)


def error_on_a_known_path(name, steps, spread):
    """Follow, on the simple grid, the exact velocity towards pictures that are normal with this spread.

    The picture expected at x is known in closed form, and so is the path: from 1 it ends at `spread`. The level is
    taken from the timestep, so a timestep that is not its sigma's spoils the result.
    """
    solver = make_solver(name, steps, 3.0, "simple")
    x = np.array(1.0)
    for i, t in enumerate(solver.schedule.timesteps):
        level = t / 1000
        picture = (1 - level) * spread**2 * x / ((1 - level) ** 2 * spread**2 + level**2)
        solver, x = solver.step(i, (x - picture) / level, x)
    return abs(float(x) - spread) / spread


@pytest.mark.parametrize("spread", [0.4, 2.0])
def test_every_solver_converges_on_it(spread):
    """Four times the steps quarter Euler's error; the others are far below it, and fall, although lambda starts at
    minus infinity here, where upstream's UniPC begins at 0.999."""
    few, many = ({name: error_on_a_known_path(name, steps, spread) for name in SOLVERS} for steps in (50, 200))
    assert 0.2 < many["euler"] / few["euler"] < 0.3
    for name in ("unipc", "dpm++"):
        assert few[name] < 0.2 * few["euler"]
        assert many[name] < 0.2 * many["euler"]
        assert many[name] < 0.5 * few[name]


@pytest.mark.parametrize("steps", [1, 4, 8, 20, 40, 1000])
def test_where_the_steps_divide_1000_only_the_timesteps_differ(steps):
    simple, official = make_solver("euler", steps, 3.0, "simple").schedule, make_solver("euler", steps, 3.0).schedule
    np.testing.assert_allclose(simple.sigmas, official.sigmas, rtol=2 * EPS)
    beyond = np.subtract(simple.timesteps, official.timesteps)  # upstream cuts off what is behind the point
    assert beyond.min() > -1e-3
    assert beyond.max() < 1 + 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("steps", "shift"), [(1, 3), (2, 8), (1000, 0.01), (1000, 100), (7, 0.01), (40, 100)])
def test_its_widest_settings_give_finite_steps(solver, steps, shift):
    settings = a_sampling(steps=steps, shift=shift, solver=solver, grid="simple")
    sampler, sample = make_solver(settings.solver, settings.steps, settings.shift, settings.grid), np.ones(16)
    for i in range(steps):
        sampler, sample = sampler.step(i, 0.5 * sample, sample)
    assert np.isfinite(sample).all()


def test_a_grid_that_is_unknown_is_refused():
    for refused in (lambda: a_sampling(grid="karras"), lambda: make_solver("euler", 4, 3.0, "karras")):
        with pytest.raises(RequestError, match="'karras' is unknown: choose one of upstream, simple"):
            refused()


def test_upstreams_grid_is_the_default():
    assert a_sampling().grid == GRIDS[0] == "upstream"
    for solver in SOLVERS:
        assert make_solver(solver, 6, 5).schedule == make_solver(solver, 6, 5, "upstream").schedule
