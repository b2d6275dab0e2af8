"""LPIPS: learned perceptual distance of a translation and its target (Zhang et al. 2018), lower is better.

Both images go through the five convolutions of AlexNet. Per layer and place the activations are brought to unit
length over the channels, their squared differences are weighted by the learned weights of the channels, summed,
averaged over space, and added up over the layers. The weights are an input of the pipeline, ``features.lpips``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repix import profile
from repix.errors import UserError
from repix.evaluation.features import are_numbers
from repix.evaluation.metrics import Score, Scorer
from repix.files import digest_file

SMALLEST = 32

# Place in AlexNet, channels in and out, kernel, stride, padding, and whether a 3 x 3 pooling of stride 2 comes first.
LAYERS = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What the input on [-1, 1] is shifted and divided by: the mean and deviation that AlexNet was trained under."""
_EPSILON = 1e-10

PROTOCOL = {
    "definition": "Zhang et al. 2018, LPIPS version 0.1 with linear weights",
    "network": "AlexNet, after each of its five convolutions",
    "input": "8-bit RGB on [-1, 1]; grey is repeated; no resizing",
    "aggregate": "sum over layers of means over space, then mean over images",
}


@dataclass(frozen=True)
class PerceptualNetwork:
    """AlexNet's convolutions and the weights of their channels.

    Attributes:
        weights: sha256 of the file.
        layers: per layer kernel (out, in, k, k), bias (out,) and channel weights (out,), torch float32.
    """

    weights: str
    layers: tuple[tuple[Any, Any, Any], ...]


def tensor_names(layer: int) -> tuple[str, str, str]:
    """Return what kernel, bias and channel weights of a layer are called in the state dict of ``lpips.LPIPS``."""
    convolution = f"net.slice{layer + 1}.{LAYERS[layer][0]}"
    return f"{convolution}.weight", f"{convolution}.bias", f"lin{layer}.model.1.weight"


def load_network(path: str | Path, sha256: str) -> PerceptualNetwork:
    """Return the network with the weights of a file, the state dict of ``lpips.LPIPS(net="alex")``.

    Raises:
        UserError: no such file, another digest, or not such a state dict.
    """
    import torch

    profile.settle_torch()
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the features stage, or mend features.lpips.urls")
    found = digest_file(path)
    if found != sha256:
        raise UserError(f"{path}: sha256 is {found}, expected {sha256}; fetch it again, or mend features.lpips.sha256")
    wrong = f"{path}: not the state dict of lpips.LPIPS(net='alex')"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state)
    except Exception as error:  # unpickling errors come in many types
        raise UserError(f"{wrong} ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})") from None
    layers = []
    for number, (_, before, after, size, *_) in enumerate(LAYERS):
        shapes = (after, before, size, size), (after,), (1, after, 1, 1)
        tensors = []
        for name, shape in zip(tensor_names(number), shapes, strict=True):
            tensor = state.get(name)
            if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
                raise UserError(f"{wrong}: {name} is not a tensor of {shape}")
            if not are_numbers(tensor):
                raise UserError(f"{wrong}: {name} holds other than finite floats")
            tensors.append(tensor.to(torch.float32))
        layers.append((tensors[0], tensors[1], tensors[2].reshape(-1)))
    return PerceptualNetwork(found, tuple(layers))


def too_small(height: int, width: int) -> str | None:
    """Return why images of this size have no LPIPS, or None if they have one."""
    return f"images are smaller than {SMALLEST} pixels" if min(height, width) < SMALLEST else None


def lpips(outputs: np.ndarray, targets: np.ndarray, network: PerceptualNetwork) -> np.ndarray:
    """Return the distance of each image to its target, (n,) float64, at least 0 with the published weights.

    Args:
        outputs, targets: (n, h, w, 3) uint8, 32 pixels or more.
    """
    import torch

    profile.settle_torch()
    with torch.inference_mode():
        return np.array([_distance(*pair, network) for pair in zip(outputs, targets, strict=True)])


def _distance(output: np.ndarray, target: np.ndarray, network: PerceptualNetwork) -> float:
    import torch

    shift, scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (SHIFT, SCALE))
    pair = torch.from_numpy(np.stack([output, target]).transpose(0, 3, 1, 2).copy()).to(torch.float32)
    maps = (pair / 127.5 - 1.0 - shift) / scale
    total = []
    for (*_, stride, padding, pooled), (kernel, bias, channel_weights) in zip(LAYERS, network.layers, strict=True):
        if pooled:
            maps = torch.nn.functional.max_pool2d(maps, 3, 2)
        maps = torch.nn.functional.conv2d(maps, kernel, bias, stride, padding).relu()
        unit = maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)
        difference = (unit[0] - unit[1]).square()
        total.append(float((difference * channel_weights[:, None, None]).sum(dim=0).mean()))
    return math.fsum(total)


def _score(outputs: Sequence, targets: Sequence, network: PerceptualNetwork) -> Score:
    return Score.of_images(lpips(outputs, targets, network), definition={"weights": network.weights})


SCORER = Scorer(PROTOCOL, _score, unavailable=too_small)
