"""The networks of pix2pix and CycleGAN and a step of their training, in plain PyTorch.

Organised as the reference code (junyanz/pytorch-CycleGAN-and-pix2pix) is, and written anew after its rules: U-Net (with
dropout in the blocks between the innermost and the outer four) or ResNet, PatchGAN, kernels N(0, 0.02) and norm scales
N(1, 0.02), PyTorch's Adam, the order of the updates, a pool of fakes for CycleGAN. `benchmarks.step` and
`benchmarks.gpu` time the step, `benchmarks.support.reference` trains with it. Nothing heavy is imported before it is
used.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from repix.config.models import Recipe


@dataclass(frozen=True)
class Way:
    """How PyTorch computes a step; as it stands, as the reference code does.

    Attributes:
        precision: ``float32``, ``tf32`` or ``bfloat16`` (autocast; weights stay float32).
        tuned: channels last in memory, and the optimizer's fused kernel.
        compiled: the backend of ``torch.compile`` that the networks go through, or None.
        graph: whether the whole step is recorded once, as a CUDA graph, and replayed.
        device: ``cpu`` or ``cuda``.
    """

    precision: str = "float32"
    tuned: bool = False
    compiled: str | None = None
    graph: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Training:
    """Networks at their first weights, and the step that trains them.

    Attributes:
        networks: name -> ``torch.nn.Module``, under the names that ours have.
        optimizers: the generators' and the discriminators'.
        step: (source, target) in [-1, 1], (batch, channels, height, width), -> both losses, as tensors.
    """

    networks: dict[str, Any]
    optimizers: tuple[Any, Any]
    step: Callable[[Any, Any], tuple[Any, Any]]


# --- networks


def unet(size: int, filters: int, source: int = 3, target: int = 3):
    """Return the U-Net for images of ``size`` px, a power of two from 32 on; its innermost image is 1 x 1."""
    import torch
    from torch import nn

    class Level(nn.Module):
        """One level of the U-Net: down, what lies below, up, and the skip."""

        def __init__(self, outside, inside, below=None, channels=None, dropout=False):
            super().__init__()
            self.outermost = channels is not None
            down = nn.Conv2d(channels or outside, inside, 4, 2, 1, bias=False)
            up = nn.ConvTranspose2d(inside * (2 if below else 1), outside, 4, 2, 1, bias=self.outermost)
            parts = [down] if self.outermost else [nn.LeakyReLU(0.2), down]
            if below is not None:
                parts += ([] if self.outermost else [nn.BatchNorm2d(inside)]) + [below]
            parts += [nn.ReLU(), up]
            parts += [nn.Tanh()] if self.outermost else [nn.BatchNorm2d(outside)]
            parts += [nn.Dropout(0.5)] if dropout else []
            self.body = nn.Sequential(*parts)

        def forward(self, x):
            y = self.body(x)
            return y if self.outermost else torch.cat([x, y], 1)

    level = Level(8 * filters, 8 * filters)
    for _ in range(size.bit_length() - 6):
        level = Level(8 * filters, 8 * filters, level, dropout=True)
    for outside, inside in ((4 * filters, 8 * filters), (2 * filters, 4 * filters), (filters, 2 * filters)):
        level = Level(outside, inside, level)
    return Level(target, filters, level, channels=source)


def resnet(size: int, filters: int, source: int = 3, target: int = 3):
    """Return CycleGAN's generator: 9 residual blocks from 256 px on, 6 below."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            parts = []
            for after in (nn.ReLU(), nn.Identity()):
                convolution = nn.Conv2d(4 * filters, 4 * filters, 3)
                parts += [nn.ReflectionPad2d(1), convolution, nn.InstanceNorm2d(4 * filters), after]
            self.body = nn.Sequential(*parts)

        def forward(self, x):
            return x + self.body(x)

    return nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(source, filters, 7), nn.InstanceNorm2d(filters), nn.ReLU(),
        nn.Conv2d(filters, 2 * filters, 3, 2, 1), nn.InstanceNorm2d(2 * filters), nn.ReLU(),
        nn.Conv2d(2 * filters, 4 * filters, 3, 2, 1), nn.InstanceNorm2d(4 * filters), nn.ReLU(),
        *[Residual() for _ in range(9 if size >= 256 else 6)],
        nn.ConvTranspose2d(4 * filters, 2 * filters, 3, 2, 1, output_padding=1),
        nn.InstanceNorm2d(2 * filters), nn.ReLU(),
        nn.ConvTranspose2d(2 * filters, filters, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(filters), nn.ReLU(),
        nn.ReflectionPad2d(3), nn.Conv2d(filters, target, 7), nn.Tanh(),
    )  # fmt: skip


def patch(channels: int, filters: int, norm):
    """Return the 70 px PatchGAN; before a batch norm, which has a shift of its own, no bias."""
    from torch import nn

    layers, before = [nn.Conv2d(channels, filters, 4, 2, 1), nn.LeakyReLU(0.2)], filters
    for inside, stride in ((2 * filters, 2), (4 * filters, 2), (8 * filters, 1)):
        bias = norm is nn.InstanceNorm2d
        layers += [nn.Conv2d(before, inside, 4, stride, 1, bias=bias), norm(inside), nn.LeakyReLU(0.2)]
        before = inside
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))


def first_weights(network):
    """Draw a network's weights in place from PyTorch's global generator, and return it."""
    from torch import nn

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return network


# --- steps


def training(
    system: str, size: int, filters: int, way: Way, channels: Sequence[int] = (3, 3), losses=None, pool: int = 0
) -> Training:
    """Return networks and step of a system.

    Args:
        system: ``pix2pix`` or ``cyclegan``.
        size: of the images, in pixels; a power of two from 32 on.
        filters: of the first layers.
        way: how it is computed.
        channels: of source and target.
        losses: weights of the terms and the rate, a :class:`repix.config.models.Recipe`; None: the reference code's.
        pool: earlier fakes that CycleGAN's discriminators are shown; not in a CUDA graph.
    """
    losses = losses or Recipe(system=system)
    return {"pix2pix": _pix2pix, "cyclegan": _cyclegan}[system](size, filters, way, channels, losses, pool)


def _place(network, way: Way):
    import torch

    memory = torch.channels_last if way.tuned else torch.contiguous_format
    network = first_weights(network).to(way.device, memory_format=memory)
    return torch.compile(network, backend=way.compiled) if way.compiled else network


def _adam(networks: Iterable, way: Way, rate: float):
    import torch

    parameters = itertools.chain(*(network.parameters() for network in networks))
    how = {"fused": way.tuned or None, "capturable": way.graph}
    return torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), **how)


def _cast(way: Way):
    import torch

    return torch.autocast(way.device, torch.bfloat16, enabled=way.precision == "bfloat16")


def _pix2pix(size: int, filters: int, way: Way, channels: Sequence[int], recipe: Recipe, pool: int) -> Training:
    import torch
    from torch import nn

    G = _place(unet(size, filters, *channels), way)
    D = _place(patch(sum(channels), filters, nn.BatchNorm2d), way)
    G_adam, D_adam = (_adam([network], way, recipe.optimizer.learning_rate) for network in (G, D))
    bce, cast = nn.BCEWithLogitsLoss(), _cast(way)

    def step(source, target):
        with cast:
            fake = G(source)
            D_adam.zero_grad()
            real_score, fake_score = D(torch.cat([source, target], 1)), D(torch.cat([source, fake.detach()], 1))
            d_loss = 0.5 * (
                bce(real_score.float(), torch.ones_like(real_score, dtype=torch.float32))
                + bce(fake_score.float(), torch.zeros_like(fake_score, dtype=torch.float32))
            )
        d_loss.backward()
        D_adam.step()
        for parameter in D.parameters():
            parameter.requires_grad_(False)
        with cast:
            G_adam.zero_grad()
            score = D(torch.cat([source, fake], 1))
            fool = bce(score.float(), torch.ones_like(score, dtype=torch.float32))
            g_loss = fool + recipe.loss.l1 * (fake.float() - target).abs().mean()
        g_loss.backward()
        G_adam.step()
        for parameter in D.parameters():
            parameter.requires_grad_(True)
        return d_loss.detach(), g_loss.detach()

    return Training({"generator": G, "discriminator": D}, (G_adam, D_adam), step)


def _cyclegan(size: int, filters: int, way: Way, channels: Sequence[int], recipe: Recipe, pool: int) -> Training:
    from torch import nn

    a, b = channels
    G, F = _place(resnet(size, filters, a, b), way), _place(resnet(size, filters, b, a), way)
    D_x, D_y = (_place(patch(one, filters, nn.InstanceNorm2d), way) for one in channels)
    rate = recipe.optimizer.learning_rate
    G_adam, D_adam, cast = _adam([G, F], way, rate), _adam([D_x, D_y], way, rate), _cast(way)
    discriminators = list(itertools.chain(D_x.parameters(), D_y.parameters()))
    shown_x, shown_y = Pool(pool), Pool(pool)

    def distance(score, goal):
        return (score.float() - goal).square().mean()

    def l1(one, other):
        return (one.float() - other).abs().mean()

    def step(x, y):
        for parameter in discriminators:
            parameter.requires_grad_(False)
        with cast:
            G_adam.zero_grad()
            fake_y, fake_x = G(x), F(y)
            g_loss = distance(D_y(fake_y), 1) + distance(D_x(fake_x), 1)
            g_loss = g_loss + recipe.loss.cycle * (l1(F(fake_y), x) + l1(G(fake_x), y))
            g_loss = g_loss + recipe.loss.identity * (l1(F(x), x) + l1(G(y), y))
        g_loss.backward()
        G_adam.step()
        for parameter in discriminators:
            parameter.requires_grad_(True)
        with cast:
            D_adam.zero_grad()
            d_loss = 0.5 * sum(
                distance(D(real), 1) + distance(D(fake), 0)
                for D, real, fake in ((D_x, x, shown_x(fake_x.detach())), (D_y, y, shown_y(fake_y.detach())))
            )
        d_loss.backward()
        D_adam.step()
        return d_loss.detach(), g_loss.detach()

    networks = {"generator": G, "inverse_generator": F, "source_discriminator": D_x, "target_discriminator": D_y}
    return Training(networks, (G_adam, D_adam), step)


class Pool:
    """Earlier fakes: once full, in half of the calls one of them is returned and the new one takes its place."""

    def __init__(self, size: int):
        self.size, self.images = size, []

    def __call__(self, fake):
        """Return what the discriminator is shown in place of ``fake``, a batch that is one entry of the pool."""
        if len(self.images) < self.size:
            self.images.append(fake)
            return fake
        if not self.size or random.random() < 0.5:
            return fake
        place = random.randrange(self.size)
        shown, self.images[place] = self.images[place], fake
        return shown
