"""Convolutions as products of short sums: the library's results but for rounding, in an order that is written down."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from repix import profile
from repix.config.models import Discriminator, Generator
from repix.models import fixed_sums
from repix.models.discriminators import build_discriminator
from repix.models.generators import build_generator
from repix.models.initialization import initialize

ROOT = Path(__file__).resolve().parents[2]
CONVOLUTIONS = [
    # side, channels, filters, kernel, stride, padding
    (16, 3, 8, 4, 2, "same"),
    (17, 5, 8, 4, 1, "same"),
    (17, 5, 8, 4, 1, "valid"),
    (15, 40, 8, 3, 2, "valid"),
    (16, 8, 8, 3, 2, "valid"),  # whose last row nobody sees
    (15, 8, 8, 3, 2, "same"),
    (12, 6, 4, 7, 1, "valid"),  # of fewer filters than channels: products first
    (12, 3, 4, 7, 1, "valid"),
    (12, 6, 4, 4, 1, "same"),
    (12, 6, 4, 4, 1, "valid"),
    (9, 300, 4, 1, 1, "same"),
]


def numbers(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def value_and_gradients(backend, function, *given):
    """Return the value, and the gradients of the sum of its sines by each of what is given."""
    value = np.asarray(function(*map(ops.convert_to_tensor, given)))
    gradients = []
    for place, own in enumerate(given):

        def total(x, place=place):
            return ops.sum(ops.sin(function(*(x if i == place else other for i, other in enumerate(given)))))

        gradients.append(np.asarray(backend._gradient(total, ops.convert_to_tensor(own))))
    return [value, *gradients]


@pytest.fixture(params=["whole", "cut"])
def caps(request, monkeypatch):
    """Small convolutions as they are, and cut as large ones are."""
    if request.param == "cut":
        for name, value in (("SMALL", 0), ("LONGEST", 7), ("MOST_ROWS", 5)):
            monkeypatch.setattr(fixed_sums, name, value)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_and_its_gradients(backend, case, caps):
    side, channels, filters, kernel, stride, padding = case
    x, weights = numbers(2, side, side + 1, channels), numbers(kernel, kernel, channels, filters)
    exact = x.astype(np.float64), weights.astype(np.float64)
    plain = value_and_gradients(backend, lambda x, w: ops.conv(x, w, stride, padding), *exact)
    found = value_and_gradients(backend, lambda x, w: fixed_sums.convolution(x, w, stride, padding), x, weights)
    for one, other in zip(found, plain, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"), [(8, 4, 2, "same"), (7, 3, 2, "same"), (7, 3, 2, "valid")]
)
def test_a_transposed_convolution_and_its_gradients(backend, side, kernel, stride, padding, caps):
    layer = layers.Conv2DTranspose(6, kernel, stride, padding, use_bias=False)
    x = numbers(2, side, side + 1, 5)
    layer.build(x.shape)
    weights = numbers(kernel, kernel, 6, 5)

    def plain(x, w):
        return ops.conv_transpose(x, w, stride, padding)

    assert_close(np.asarray(plain(x, weights)), (layer.kernel.assign(weights), np.asarray(layer(x)))[1])
    found = value_and_gradients(
        backend, lambda x, w: fixed_sums.transposed_convolution(x, w, stride, padding), x, weights
    )
    for one, other in zip(found, value_and_gradients(backend, plain, x, weights), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("case", [CONVOLUTIONS[0], CONVOLUTIONS[3], CONVOLUTIONS[6]])
def test_a_gradient_of_a_gradient(backend, case):
    """As the penalty of WGAN-GP takes it, by the image and by the kernel."""
    side, channels, filters, kernel, stride, padding = case
    x, weights = numbers(1, side, side, channels), 0.1 * numbers(kernel, kernel, channels, filters)

    def found(convolution):
        def penalty(x, w):
            inner = backend._gradient(lambda x: ops.sum(ops.sin(convolution(x, w, stride, padding))), x)
            return ops.sum(ops.sin(inner))

        x_, w_ = map(ops.convert_to_tensor, (x, weights))
        return [
            np.asarray(backend._gradient(lambda x: penalty(x, w_), x_)),
            np.asarray(backend._gradient(lambda w: penalty(x_, w), w_)),
        ]

    for one, other in zip(found(fixed_sums.convolution), found(ops.conv), strict=True):
        assert_close(one, other)


def test_a_large_convolution_is_cut_into_operations_that_move_no_bit(monkeypatch):
    count, plain = [], fixed_sums.matmul
    monkeypatch.setattr(fixed_sums, "matmul", lambda a, b, turned=None: count.append(1) or plain(a, b, turned))
    x, weights = map(ops.convert_to_tensor, (numbers(1, 80, 80, 64), numbers(4, 4, 64, 70)))
    found, cut = np.asarray(fixed_sums.convolution(x, weights, 2, "same")), len(count)
    assert cut == fixed_sums.OPERATIONS
    monkeypatch.setattr(fixed_sums, "SMALL", 10**12)
    np.testing.assert_array_equal(found, np.asarray(fixed_sums.convolution(x, weights, 2, "same")))
    assert len(count) == cut + 1


def cut_rows(rows: int) -> list[int]:
    """Return at which cuts of a product of so many rows the library gives other bits than for the whole.

    The cuts are those of Eigen (``evaluateProductBlockingSizesHeuristic``), which makes blocks about equally large, for
    whatever number of rows the first cache may hold.
    """
    found = []
    for k, columns in ((147, 64), (147, 96), (64, 208), (256, 512)):
        a, b = numbers(rows, k), numbers(k, columns)

        def product(a, b=b):
            return np.asarray(fixed_sums.matmul(np.stack([a, a]), np.stack([b, b])))[0]  # two: as for many pieces

        whole = product(a)
        for most in range(24, rows, 24):
            cut = most if rows % most == 0 else most - 24 * ((most - rows % most) // (24 * (rows // most + 1)))
            if (rows - 1) % cut + 1 >= 6:  # a shorter rest takes the way of small products
                parts = np.concatenate([product(a[start : start + cut]) for start in range(0, rows, cut)])
                found += [cut] if (parts != whole).any() else []
    return found


ROWS = sorted({fixed_sums.filled_rows(rows) for rows in range(1, 257)})


def digests(product, rows, columns, lengths=(2, 49, 147, 256)) -> dict[str, str]:
    """Return the digest of a product for each of some numbers of rows, of summed numbers, and of columns."""
    found = {}
    for m, k, n in itertools.product(rows, lengths, columns):
        for turned in (None, "a", "b"):
            a, b = numbers(1, m, k), numbers(1, k, n)  # one alone: two small ones would not reach the library's kernel
            a, b = (x.swapaxes(1, 2) if turned == name else x for name, x in (("a", a), ("b", b)))
            said = np.asarray(product(a, b, turned))
            found[f"{m} x {k} x {n}, {turned}"] = hashlib.sha256(said.tobytes()).hexdigest()
    return found


def measured() -> dict[str, Any]:
    """Return what the library does with the instruction set that this process is allowed."""

    def plain(a, b, turned):
        return tf.linalg.matmul(a, b, transpose_a=turned == "a", transpose_b=turned == "b")

    return {
        "others cut": cut_rows(135) + cut_rows(128),
        "ours cut": {rows: cuts for rows in ROWS if rows > 24 and (cuts := cut_rows(rows))},
        "other rows": digests(plain, (3, 8), (32, 64)),
        "other columns": digests(plain, (96,), (24, 40)),
        "ours": digests(fixed_sums.matmul, ROWS, (1, 3, 24, 40, 64, 112, 512))
        | digests(fixed_sums.matmul, (4, 16, 256), (2048, 4096), (192, 256)),
    }


@pytest.fixture(scope="module")
def by_instructions():
    """What the library does, by instruction set: it reads once in a process which one it may use."""
    code = "import json; from tests.models import test_fixed_sums as t; print(json.dumps(t.measured()))"
    found = {}
    for isa in ("AVX2", "AVX512_CORE"):
        environ = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found[isa] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_products_have_numbers_of_rows_that_no_cut_moves(by_instructions):
    """A library cuts rows at multiples of 24 by the CPU's first cache: 135 rows whole, or as 72 and 63."""
    assert by_instructions["AVX2"]["others cut"], "this library has no rows that move: nothing to avoid"
    assert all(found["ours cut"] == {} for found in by_instructions.values())
    assert all(fixed_sums.filled_rows(rows) >= rows for rows in range(1, 257)) and max(ROWS) == fixed_sums.MOST_ROWS


@pytest.mark.skipif(not profile.cpu_has("avx512f"), reason="this CPU has no AVX-512")
def test_products_have_numbers_of_rows_and_columns_that_wider_vectors_do_not_move(by_instructions):
    """AVX-512 is let in under the portable profile since these come out as with AVX2, which others do not."""
    narrow, wide = (by_instructions[isa] for isa in ("AVX2", "AVX512_CORE"))
    for what in ("other rows", "other columns"):
        assert narrow[what] != wide[what], f"no product of {what} moves: nothing to avoid"
    assert [name for name in narrow["ours"] if narrow["ours"][name] != wide["ours"][name]] == []


@pytest.mark.parametrize("columns", [1, 3, 16, 24])
@pytest.mark.parametrize("turned", [None, "b"])
def test_columns_that_are_added_are_taken_away_again(columns, turned):
    a, b = numbers(2, 30, 40), numbers(2, 40, columns)
    given = b.transpose(0, 2, 1) if turned else b
    assert_close(np.asarray(fixed_sums.matmul(a, given, turned)), a @ b)
    assert fixed_sums.filled_columns(columns) in (1, 16, 32) and fixed_sums.filled_columns(columns) >= columns


@pytest.mark.parametrize("cut", [True, False])
def test_no_product_sums_more_than_the_longest_or_has_more_rows(backend, monkeypatch, cut):
    """Neither forwards, nor in a gradient, nor in a gradient of a gradient (the penalty of WGAN-GP)."""
    lengths, rows, plain, longest, most = [], [], fixed_sums.matmul, fixed_sums.LONGEST, fixed_sums.MOST_ROWS
    if not cut:  # what is to be cut is there
        monkeypatch.setattr(fixed_sums, "LONGEST", 10**6)
        monkeypatch.setattr(fixed_sums, "MOST_ROWS", 10**6)

    def watched(a, b, turned=None):
        rows.append(a.shape[-1 if turned == "a" else -2])
        lengths.append(a.shape[-2 if turned == "a" else -1])
        return plain(a, b, turned)

    monkeypatch.setattr(fixed_sums, "matmul", watched)
    x, weights = ops.convert_to_tensor(numbers(1, 60, 60, 20)), ops.convert_to_tensor(numbers(4, 4, 20, 300))

    def total(w):
        def inner(x):
            return ops.sum(ops.square(fixed_sums.convolution(x, w, 2, "same")))

        return ops.sum(ops.square(backend._gradient(inner, x)))

    backend._gradient(total, weights)
    if cut:
        assert len(lengths) >= 6 and max(lengths) <= longest and max(rows) <= most
    else:  # channels times taps, places, filters
        places = fixed_sums.filled_rows(900)
        assert {fixed_sums.filled_rows(320), places, 300} <= set(lengths) and max(rows) == places


@pytest.mark.parametrize(("m", "k"), [(3, 1), (3, 256), (3, 257), (513, 1), (3, 1000), (3, 4096), (2048, 4096)])
def test_pieces_are_added_pair_by_pair(m, k):
    a, b = numbers(m, k), numbers(k, 2)
    found = np.asarray(fixed_sums.product(ops.convert_to_tensor(a), ops.convert_to_tensor(b)))
    assert_close(found, a.astype(np.float64) @ b)
    pieces, blocks = 1, 1
    while pieces * fixed_sums.LONGEST < k:
        pieces *= 2
    while blocks * fixed_sums.MOST_ROWS < m:
        blocks *= 2
    length, rows = fixed_sums.filled_rows(-(-k // pieces)), fixed_sums.filled_rows(-(-m // blocks))
    if pieces == blocks == 1 or (length * pieces, rows * blocks) != (k, m):  # nothing was cut, or zeros were added
        return
    columns = [slice(i, i + length) for i in range(0, k, length)]
    parts = [[a[i : i + rows, part] for i in range(0, m, rows)] for part in columns]
    # A product of its own for each piece: of two at once, so that the library takes the way that it takes for many.
    terms = [
        np.concatenate([np.asarray(ops.matmul(np.stack([one, one]), np.stack([b[part]] * 2)))[0] for one in each])
        for each, part in zip(parts, columns, strict=True)
    ]
    while len(terms) > 1:
        half = len(terms) // 2
        terms = [one + other for one, other in zip(terms[:half], terms[half:], strict=True)]
    np.testing.assert_array_equal(found, terms[0])


NETWORKS = {
    "unet": Generator(filters=4),
    "resize": Generator(filters=4, upsampling="resize"),
    "resnet": Generator(kind="resnet", filters=4, blocks=1),
    "same": Generator(kind="resnet", filters=4, blocks=1, padding="same"),
    "patch": Discriminator(filters=4, conditional=False),
    "minibatch": Discriminator(kind="minibatch", filters=4, conditional=False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_the_same_function_and_has_its_own_calls_back(name):
    settings = NETWORKS[name]
    build = build_generator if isinstance(settings, Generator) else build_discriminator
    network = build(settings, (64, 64), 3, 1 if name in ("resnet", "same") else 3, name)
    initialize({network.name: network}, "glorot", 0)
    image = ops.convert_to_tensor(np.tanh(numbers(1, 64, 64, 3)))
    plain = np.asarray(network(image, training=False))
    with fixed_sums.fixed_sums([network]):
        replaced = [layer for layer in network.layers if "call" in vars(layer)]
        assert len(replaced) == sum(
            bool(layer.trainable_weights) and hasattr(layer, "kernel") for layer in network.layers
        )
        np.testing.assert_allclose(np.asarray(network(image, training=False)), plain, rtol=1e-4, atol=1e-5)
    assert not any("call" in vars(layer) for layer in network.layers)


def test_layers_of_one_shape_are_traced_once(monkeypatch):
    traced, plain = [], fixed_sums.convolution

    def watched(x, kernel, stride, padding):
        traced.append(tuple(x.shape))
        return plain(x, kernel, stride, padding)

    monkeypatch.setattr(fixed_sums, "convolution", watched)
    image = keras.Input((8, 8, 4))
    x = image
    for _ in range(5):
        x = layers.Conv2D(4, 3, padding="same")(x)
    network = keras.Model(image, layers.Conv2D(4, 3, padding="valid")(x))
    with fixed_sums.fixed_sums([network]):
        network(ops.convert_to_tensor(numbers(1, 8, 8, 4)))
    assert traced == [(1, 8, 8, 4)] * 2


def test_a_layer_that_is_not_covered_is_refused():
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, layers.Conv2D(4, 3, dilation_rate=2, name="wide")(image))
    with (
        pytest.raises(ValueError, match=r"layer wide: .* has no Conv2D of this kind"),
        fixed_sums.fixed_sums([network]),
    ):
        pass


def test_training_and_translation_use_them_under_the_portable_profile_alone(backend, monkeypatch):
    from repix import profile
    from repix.inference.tensorflow_backend import compile_function
    from repix.inference.translator import Translator
    from repix.schemas import Side

    used, plain = [], fixed_sums.matmul
    monkeypatch.setattr(fixed_sums, "matmul", lambda a, b, turned=None: used.append(1) or plain(a, b, turned))
    network = build_generator(Generator(filters=2, dropout=0), (16, 16), 3, 3)
    side = Side(channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, meaning=("R", "G", "B"), colour="rgb")
    for name in ("fast", "portable"):
        monkeypatch.setattr(profile, "current", lambda name=name: profile.find(name))
        Translator(network, side, side, compile_function).translate(np.zeros((1, 16, 16, 3), np.uint8))
        assert bool(used) == (name == "portable")


def test_a_last_layer_of_many_channels_takes_no_more_memory_than_its_products(backend, monkeypatch):
    sizes, plain = [], fixed_sums.matmul

    def watched(a, b, turned=None):
        result = plain(a, b, turned)
        sizes.extend(int(np.prod(one.shape)) for one in (a, result))
        return result

    monkeypatch.setattr(fixed_sums, "matmul", watched)
    fixed_sums.convolution(*map(ops.convert_to_tensor, (numbers(1, 38, 38, 64), numbers(7, 7, 64, 3))), 1, "valid")
    assert max(sizes) <= 1.01 * 38 * 38 * 49 * 3  # and not 49 times 64 a place; some rows of zeros
