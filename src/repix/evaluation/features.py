"""Extract features of images with the Inception network of pytorch-fid, the one that FID is defined on.

The network (Szegedy et al. 2015 as TensorFlow's inception-2015-12-05) is built from
``pytorch_fid.inception`` without its download: the weights are a file that the pipeline
already has, checked by sha256. Images are 8-bit RGB; the network itself resizes them to
299 x 299 (bilinear) and scales them to [-1, 1], as ``python -m pytorch_fid`` does with files.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repix import profile
from repix.errors import UserError
from repix.evaluation import unit_range
from repix.files import atomic_path, canonical_json, digest_arrays, digest_file, digest_text
from repix.schemas import Side

PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes, of pytorch-fid's releases."""

PROTOCOL = {
    "network": "Inception 2015-12-05 as in pytorch-fid 0.3.0",
    "input": "8-bit RGB; grey is repeated",
    "resize": "299 x 299 by the network, bilinear, align_corners false, no antialiasing",
    "pooling": "mean over space",
}

_TAIL = ("Mixed_7", "fc.")  # what only the 2048-d features need
_declared: list[Any] = []  # torch drops a library's operators when the object goes


def import_pytorch_fid() -> Any:
    """Import and return ``pytorch_fid.inception``: nothing else in repix imports torchvision.

    pytorch-fid imports torchvision. Its wheels on PyPI are CUDA builds, whose C++ extension
    does not load beside a CPU torch; ``import torchvision`` then dies because it describes
    operators (``nms``, ``qnms``) that the extension would have defined. Inception calls none
    of them, so it is enough to declare their signatures first.
    """
    if "torchvision" not in sys.modules:
        import torch

        spec = importlib.util.find_spec("torchvision")
        try:
            for extension in Path(spec.origin).parent.glob("_C*.so"):
                torch.ops.load_library(str(extension))
        except OSError:
            pass
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    from pytorch_fid import inception

    return inception


@dataclass(frozen=True)
class FeatureNetwork:
    """Inception with its weights, ready to extract.

    Attributes:
        dims: feature sizes that one pass returns, ascending.
        weights: sha256 of the file of weights, or ``random-<seed>``.
        module: ``pytorch_fid.inception.InceptionV3`` in evaluation mode.
    """

    dims: tuple[int, ...]
    weights: str
    module: Any

    def metric_name(self, metric: str, dims: int) -> str:
        """Return what ``fid`` or ``kid`` on these features is called in the metrics file."""
        return metric_name(metric, dims, self.weights)

    def protocol(self, dims: int) -> dict[str, Any]:
        """Return what a number on these features must be published with."""
        return PROTOCOL | {"dims": dims, "weights": self.weights}


def metric_name(metric: str, dims: int, weights: str) -> str:
    """Return the name of ``fid`` or ``kid`` on some features.

    The plain name is that of the published weights at 2048 dims alone. At other dims the name
    carries them (``fid_768``), and with other weights the head of their digest too (``fid_768_bc029001``).
    """
    if weights == PUBLISHED_SHA256:
        return metric if dims == 2048 else f"{metric}_{dims}"
    return f"{metric}_{dims}_{weights.replace('-', '_') if weights.startswith('random') else weights[:8]}"


def are_numbers(tensor: Any) -> bool:
    """Whether this is a tensor of finite floats that lies in memory as it is: none that is sparse or quantised."""
    import torch

    plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    return plain and tensor.is_floating_point() and bool(tensor.isfinite().all())


def _inception() -> Any:
    """Return the network of pytorch-fid's ``fid_inception_v3``, without the weights that this would download."""
    reference = import_pytorch_fid()
    import torchvision

    network = torchvision.models.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = reference.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = reference.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = reference.FIDInceptionA(288, pool_features=64)
    for name, width in {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}.items():
        setattr(network, name, reference.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = reference.FIDInceptionE_1(1280)
    network.Mixed_7c = reference.FIDInceptionE_2(2048)
    return network


def _folded(network: Any) -> Any:
    """Fold each batch norm into the convolution before it, and lay images out with their channels last.

    The function is the same but for rounding (features move by parts in ten million), in less time.
    """
    import torch

    for part in network.modules():
        if hasattr(part, "conv") and hasattr(part, "bn"):
            part.conv, part.bn = torch.nn.utils.fuse_conv_bn_eval(part.conv.eval(), part.bn.eval()), torch.nn.Identity()
    return network.to(memory_format=torch.channels_last)


def _wrap(network: Any, dims: Sequence[int], weights: str) -> FeatureNetwork:
    """Put the network into pytorch-fid's wrapper, which resizes, scales and names the blocks."""
    reference = import_pytorch_fid()
    dims = tuple(sorted(dims))
    builder, reference.fid_inception_v3 = reference.fid_inception_v3, lambda: _folded(network)
    try:
        module = reference.InceptionV3([reference.InceptionV3.BLOCK_INDEX_BY_DIM[d] for d in dims])
    finally:
        reference.fid_inception_v3 = builder
    return FeatureNetwork(dims, weights, module.eval())


def load_network(dims: Sequence[int], weights: str | Path, sha256: str) -> FeatureNetwork:
    """Return Inception with the weights of a file.

    Args:
        dims: feature sizes to extract: 64, 192, 768 or 2048, of blocks 0 to 3 (two max poolings, Mixed_6e, and the
            final average pooling).
        weights: a state dict under pytorch-fid's tensor names. It may end after Mixed_6e, and
            then serves 64, 192 and 768 dims.
        sha256: what the file must be.

    Raises:
        UserError: no such file, another digest, not such a state dict, or it ends before the
            layer that ``dims`` asks for.
    """
    weights = Path(weights)
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; run the download stage, or mend features.<name>.urls")
    found = digest_file(weights)
    if found != sha256:
        raise UserError(
            f"{weights}: sha256 is {found}, expected {sha256}; fetch it again, or mend features.<name>.sha256"
        )
    network = _inception()
    import torch

    profile.settle_torch()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        for name, tensor in state.items():
            if not (name.endswith("num_batches_tracked") or are_numbers(tensor)):
                raise ValueError(f"{name} holds other than finite floats")
        missing, unexpected = network.load_state_dict(state, strict=False)
    except Exception as error:  # unpickling and shape errors come in many types
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{weights}: not weights of pytorch-fid's Inception ({type(error).__name__}: {reason})"
        ) from None
    # Newer torch counts batches in a buffer that older files lack; inference does not read it.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if unexpected or any(not name.startswith(_TAIL) for name in missing):
        wrong = [*unexpected, *(name for name in missing if not name.startswith(_TAIL))]
        raise UserError(
            f"{weights}: not weights of pytorch-fid's Inception ({len(wrong)} tensors differ: {wrong[0]} ...)"
        )
    if max(dims) > 768 and any(name.startswith("Mixed_7") for name in missing):
        raise UserError(
            f"{weights}: ends after Mixed_6e, so it has no features of {max(dims)} dims; "
            "ask for evaluate.dims of 64, 192 or 768, or use the published file"
        )
    return _wrap(network, dims, found)


def as_rgb8(images: np.ndarray, side: Side) -> np.ndarray | None:
    """Return the images of a side as pictures, (n, h, w, 3) uint8.

    Deeper images are rounded to 8 bits, as a PNG that pytorch-fid reads would be.

    Returns:
        None where the side is not a picture (Lab planes, raw channels).
    """
    if side.colour not in ("rgb", "gray"):
        return None
    if images.dtype != np.uint8 or set(side.low) != {0} or set(side.high) != {255}:
        scaled = np.empty(images.shape, np.uint8)
        for i, image in enumerate(images):
            scaled[i] = np.rint(255.0 * unit_range(image, side.low, side.high).clip(0.0, 1.0))
        images = scaled
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def extract(
    images: np.ndarray, network: FeatureNetwork, *, batch_size: int = 8, cache: str | Path | None = None
) -> dict[int, np.ndarray]:
    """Return the features of images, for every one of the network's dims.

    Args:
        images: (n, h, w, 3) or (n, h, w, 1) uint8.
        network: see :func:`load_network`.
        batch_size: images at once: a matter of speed and memory, not of the result.
        cache: folder that keeps features by images, weights, dims and protocol; other code, packages or profile
            need another folder, as :meth:`repix.stage.LineageRecord.memo` gives one. None keeps nothing.

    Returns:
        dims -> (n, dims) float32.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"expected (n, h, w, 3 or 1) uint8, got {images.shape} {images.dtype}")
    files = _cache_files(images, network, cache)
    known = {dims: _read_cached(path, (len(images), dims)) for dims, path in files.items()}
    if known and all(features is not None for features in known.values()):
        return known

    import torch
    from tqdm import tqdm

    profile.settle_torch()
    result = {dims: np.empty((len(images), dims), np.float32) for dims in network.dims}
    with torch.inference_mode(), tqdm(total=len(images), desc="features", unit="image", disable=None) as progress:
        for start in range(0, len(images), batch_size):
            part = np.array(images[start : start + batch_size])  # torch warns of arrays that cannot be written
            batch = torch.from_numpy(part).to(torch.float32).div(255).expand(-1, -1, -1, 3).permute(0, 3, 1, 2)
            maps = network.module(batch.contiguous(memory_format=torch.channels_last))
            for dims, activations in zip(network.dims, maps, strict=True):
                pooled = torch.nn.functional.adaptive_avg_pool2d(activations, 1)
                result[dims][start : start + len(part)] = pooled[:, :, 0, 0].numpy()
            progress.update(len(part))
    for dims, path in files.items():
        with atomic_path(path) as temporary:
            np.savez(temporary, features=result[dims])
    return result


def _cache_files(images: np.ndarray, network: FeatureNetwork, cache: str | Path | None) -> dict[int, Path]:
    """Return the file of each dims in the cache; none without a cache."""
    if cache is None:
        return {}
    shown = {"images": digest_arrays({"images": images})}
    keys = {dims: digest_text(canonical_json(shown | network.protocol(dims))) for dims in network.dims}
    return {dims: Path(cache) / f"{key}.npz" for dims, key in keys.items()}


def _read_cached(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return cached features, or None where there are none or the file is damaged (zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            features = archive["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
