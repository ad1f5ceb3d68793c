"""What both trainings share: optimiser, averaged weights, checkpoints, and a learning rate that fits the time given."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SAVE_EVERY = 120  # seconds


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more axes, AdamW for the rest, at one learning rate.

    Source: "Muon: an optimizer for hidden layers" (K. Jordan, 2024), scaled to AdamW's step as in arXiv 2502.16982.
    `plain` names parameters that take AdamW although they are matrices.
    """

    def __init__(self, network: nn.Module, plain: Callable[[str], bool], decay: float = 0.01):
        matrices, rest = [], []
        for name, parameter in network.named_parameters():
            (matrices if parameter[0].numel() > 1 and parameter.ndim > 1 and not plain(name) else rest).append(
                parameter
            )
        groups = [{"params": matrices, "turn": True}, {"params": rest, "turn": False}]
        super().__init__(groups, {"lr": 0.0, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            follow = _momentum if group["turn"] else _adam
            updates = [follow(self.state[parameter], parameter.grad) for parameter in parameters]
            updates = _shared(_turned, updates) if group["turn"] else updates
            for parameter, update in zip(parameters, updates, strict=True):
                if parameter.ndim > 1:
                    parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.sub_(group["lr"] * update)


def _momentum(state: dict[str, Any], gradient: Tensor) -> Tensor:
    momentum = state.setdefault("momentum", torch.zeros_like(gradient))
    momentum.lerp_(gradient, 0.05)
    return gradient.lerp(momentum, 0.95)


def _shared(work: Callable[[Tensor], Tensor], given: list[Tensor]) -> list[Tensor]:
    """Return work(x) for each x given, of x's shape; with several processes each does its part, and all get all."""
    if processes() == 1:
        return [work(x) for x in given]
    done = [work(x) if i % processes() == rank() else torch.zeros_like(x) for i, x in enumerate(given)]
    joined = torch.cat([x.flatten() for x in done])
    dist.all_reduce(joined)
    return [part.view_as(x) for part, x in zip(joined.split([x.numel() for x in given]), given, strict=True)]


def _turned(gradient: Tensor) -> Tensor:
    x = gradient.flatten(1)
    x = (x / (x.norm() + 1e-12)).bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if tall else x
    return (0.2 * max(x.shape) ** 0.5 * x.float()).view_as(gradient)


def _adam(state: dict[str, Any], gradient: Tensor) -> Tensor:
    if not state:
        state.update(step=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient))
    state["step"] += 1
    state["first"].lerp_(gradient, 0.1)
    state["second"].lerp_(gradient.square(), 0.05)
    first = state["first"] / (1 - 0.9 ** state["step"])
    second = state["second"] / (1 - 0.95 ** state["step"])
    return first / (second.sqrt() + 1e-8)


def join_processes() -> None:
    """Let the processes that torchrun started, if it did, train one network together."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")


def rank() -> int:
    """Return the number of this process; each sees other examples."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


@dataclass(slots=True)
class Stage:
    """One run of a training: `minutes` long, continuing from `folder`/NAME.pt where that exists.

    The learning rate rises, stays, and falls to zero in the last third of the time. `average` follows the network.
    """

    network: nn.Module
    optimiser: Muon
    checkpoint: Path
    minutes: float
    peak: float
    step: int = 0
    average: dict[str, Tensor] | None = None
    _begun: float = 0.0
    _saved: float = 0.0
    _steps: int = 0
    _share: float = 0.0

    def resume(self) -> None:
        """Take up a checkpoint, if there is one, and start the clock."""
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        if self.checkpoint.is_file():
            stored = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.network.load_state_dict(stored["network"])
            self.average = stored.get("average", stored["network"])
            self.step = stored["step"]
            if "optimiser" in stored:
                self.optimiser.load_state_dict(stored["optimiser"])
        self._begun = self._saved = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._share >= 1

    def advance(self, loss: Tensor) -> None:
        """Take a step down the gradient of `loss`; now and then save."""
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        self._agree()
        rate = self.peak * min(1.0, (self._steps + 1) / 50, max(0.0, 3 * (1 - self._share)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._steps += 1
        keep = min(0.998, self._steps / (self._steps + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def _agree(self) -> None:
        """Set the share of the time that is over and, with several processes, take the mean of it and of gradients."""
        share = (time.monotonic() - self._begun) / (60 * self.minutes)
        if dist.is_initialized():
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            joined = torch.cat([*(gradient.flatten() for gradient in gradients), gradients[0].new_tensor([share])])
            dist.all_reduce(joined)
            joined /= processes()
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, mean in zip(gradients, joined[:-1].split(sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))
            share = joined[-1].item()
        self._share = share

    def save(self) -> None:
        """Write the checkpoint, from the first process; it appears whole or not at all."""
        self._saved = time.monotonic()
        if rank():
            return
        aside = self.checkpoint.with_suffix(".part")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(content, aside)
        aside.replace(self.checkpoint)
