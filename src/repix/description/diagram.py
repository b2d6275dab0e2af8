"""Draw a picture of a system's networks: their blocks as boxes, in the order of the data, with sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import keras
from keras import layers

from repix.models.discriminators import MinibatchDiscrimination
from repix.models.layers import Dropout
from repix.systems.system import System

COLOURS = {
    "input": "#eeeeee",
    "conv": "#9ecae1",
    "up": "#a1d99b",
    "dense": "#fdd0a2",
    "join": "#dadaeb",
    "output": "#fee391",
}
COLUMN, ROW = 2.5, 0.62  # inches of a column and of a row


@dataclass
class Block:
    """One box: a layer with weights (or an input or a join) and what follows it until the next.

    Attributes:
        kind: a key of ``COLOURS``.
        title: what it is, such as ``conv 4x4 /2  64``.
        extras: norms, activations and dropout, in order.
        shape: of its output, without the batch.
        sources: indices of the blocks that it takes its input from.
    """

    kind: str
    title: str
    shape: tuple[int, ...]
    sources: list[int]
    extras: list[str] = field(default_factory=list)


def _title(layer: keras.Layer) -> tuple[str, str] | None:
    """Return (kind, title) of a layer that opens a block, None of one that belongs to the block before it."""
    if isinstance(layer, layers.InputLayer):
        return "input", layer.name
    if isinstance(layer, layers.Conv2DTranspose):
        return "up", f"up {layer.kernel_size[0]}x{layer.kernel_size[1]} x{layer.strides[0]}  {layer.filters}"
    if isinstance(layer, layers.Conv2D):
        stride = f" /{layer.strides[0]}" if layer.strides[0] > 1 else ""
        return "conv", f"conv {layer.kernel_size[0]}x{layer.kernel_size[1]}{stride}  {layer.filters}"
    if isinstance(layer, layers.Dense):
        return "dense", f"dense {layer.units}"
    if isinstance(layer, MinibatchDiscrimination):
        return "dense", f"minibatch {layer.kernels} x {layer.dims}"
    if isinstance(layer, layers.UpSampling2D):
        return "up", f"resize x{layer.size[0]}"
    if isinstance(layer, layers.Concatenate):
        return "join", "concat"
    if isinstance(layer, layers.Add):
        return "join", "add"
    return None


def _extra(layer: keras.Layer) -> str:
    """Return the short name of a layer within a block; padding and the like have none."""
    name = type(layer).__name__
    if isinstance(layer, layers.LeakyReLU):
        return f"leaky {layer.negative_slope:g}"
    if isinstance(layer, Dropout):
        return f"dropout {layer.rate:g}"
    if isinstance(layer, layers.Activation):
        return "" if layer.activation.__name__ == "linear" else layer.activation.__name__
    known = {"ReLU": "relu", "Softmax": "softmax", "BatchNormalization": "bn", "InstanceNormalization": "in"}
    return known.get(name, "")


def blocks(network: keras.Model) -> list[Block]:
    """Return the blocks of a network, in the order of the data."""
    found: list[Block] = []
    place: dict[str, int] = {}  # layer -> index of its block
    for layer in network.layers:
        inputs = [] if isinstance(layer, layers.InputLayer) else layer.input
        inputs = inputs if isinstance(inputs, list) else [inputs]
        sources = [place[tensor._keras_history.operation.name] for tensor in inputs]
        titled = _title(layer)
        if titled is None:
            # A skip that has an activation of its own still starts from the same block.
            block = sources[0]
            extra = _extra(layer)
            if extra and extra not in found[block].extras:
                found[block].extras.append(extra)
            if math.prod(layer.output.shape[1:]) and not isinstance(layer, layers.ZeroPadding2D):
                found[block].shape = _unpadded(found[block].shape, tuple(layer.output.shape[1:]))
            place[layer.name] = block
            continue
        kind, title = titled
        place[layer.name] = len(found)
        found.append(Block(kind, title, tuple(layer.output.shape[1:]), sources))
    found[-1].kind = "output"
    return found


def _unpadded(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smaller of two shapes: cropping changes a block's size, padding for the next one does not."""
    return after if math.prod(after) < math.prod(before) else before


def draw(system: System, title: str, path: Path, kind: str = "png") -> None:
    """Draw the networks of a system, one column each; networks of the same layers are drawn once.

    Args:
        system: the networks.
        title: printed above.
        path: the file to write.
        kind: ``png``, ``svg`` or ``pdf``.
    """
    import matplotlib

    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "repix"}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        columns: dict[tuple, tuple[list[str], list[Block]]] = {}
        for name, network in system.networks.items():
            found = blocks(network)
            signature = tuple((b.kind, b.title if b.kind != "input" else "", b.shape, tuple(b.extras)) for b in found)
            columns.setdefault(signature, ([], found))[0].append(name)

        rows = max(len(found) for _, found in columns.values())
        width, height = 1 + (COLUMN + 1.3) * len(columns), ROW * rows + 1.3
        figure = Figure(figsize=(width, height), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(0.4, 0.4, title, fontsize=11, fontweight="bold", va="center")
        for number, (names, found) in enumerate(columns.values()):
            _column(axes, 0.4 + number * (COLUMN + 1.3), names, found)
        metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        figure.savefig(path, format=kind, metadata=metadata)


def _lanes(found: list[Block]) -> dict[tuple[int, int], int]:
    """Return a lane for each skip connection (from, to), shorter ones further in, so that no two overlap."""
    skips = [(source, row) for row, block in enumerate(found) for source in block.sources if source != row - 1]
    lanes: dict[tuple[int, int], int] = {}
    for one in sorted(skips, key=lambda skip: skip[1] - skip[0]):
        taken = {lane for other, lane in lanes.items() if other[0] < one[1] and one[0] < other[1]}
        lanes[one] = min(set(range(len(skips))) - taken)
    return lanes


def _column(axes, left: float, names: list[str], found: list[Block]) -> None:
    """Draw one network from top to bottom; skip connections run along lanes on the right."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    top, right, lanes = 1.25, left + COLUMN, _lanes(found)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 0.7, "color": "#666666", "shrinkA": 0, "shrinkB": 0}
    axes.text(left, 0.85, " and ".join(names), fontsize=9, va="center", style="italic")
    for row, block in enumerate(found):
        y = top + row * ROW
        axes.add_patch(
            FancyBboxPatch(
                (left, y - 0.2),
                COLUMN,
                0.42,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=COLOURS[block.kind],
                edgecolor="#555555",
                linewidth=0.6,
            )
        )
        axes.text(left + 0.08, y - 0.07, block.title, va="center")
        axes.text(left + 0.08, y + 0.1, "  ".join(block.extras), va="center", fontsize=6.5, color="#444444")
        shape = "x".join(map(str, block.shape))
        axes.text(right - 0.08, y - 0.07, shape, va="center", ha="right", fontsize=7, color="#222222")
        for source in block.sources:
            if source == row - 1:
                middle = left + COLUMN / 2
                axes.add_patch(FancyArrowPatch((middle, y - ROW + 0.22), (middle, y - 0.2), **arrow))
                continue
            # Leaves below the middle of its box, arrives above the middle of the other.
            x, start, end = right + 0.15 * (lanes[source, row] + 1), top + source * ROW + 0.08, y - 0.08
            axes.plot((right, x, x), (start, start, end), linewidth=0.7, color="#666666")
            axes.add_patch(FancyArrowPatch((x, end), (right, end), **arrow))
