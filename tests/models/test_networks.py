"""Generators and discriminators against PyTorch twins with the same weights, and the sizes they refuse."""

import numpy as np
import pytest

from repix.config.models import Discriminator, Generator
from repix.description.facts import receptive_field
from repix.errors import UserError
from repix.models.discriminators import MinibatchDiscrimination, build_discriminator, convolutions
from repix.models.generators import build_generator, unet_depth


def randomize(network, seed=0):
    """Set all weights to normal draws, so that nothing is zero or one by chance."""
    generator = np.random.default_rng(seed)
    for variable in network.weights:
        variable.assign(generator.normal(0.1, 0.3, tuple(variable.shape)).astype(np.float32))
    return network


def images(channels=3, size=(16, 16), n=1, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, *size, channels)).astype(np.float32)


class Twin:
    """The layers of a Keras network, computed by PyTorch: (batch, channels, height, width)."""

    def __init__(self, network):
        import torch
        from torch.nn import functional

        self.torch, self.f = torch, functional
        self.weights = {v.path: np.asarray(v) for v in network.weights}

    def get(self, name):
        value = self.weights.get(name)
        return None if value is None else self.torch.from_numpy(value)

    def tensor(self, x):
        return self.torch.from_numpy(x).permute(0, 3, 1, 2)

    def array(self, x):
        return x.permute(0, 2, 3, 1).numpy()

    def conv(self, x, name, stride=1, padding=0):
        kernel = self.get(f"{name}/kernel").permute(3, 2, 0, 1)
        return self.f.conv2d(x, kernel, self.get(f"{name}/bias"), stride, padding)

    def up(self, x, name, padding, output_padding=0):
        kernel = self.get(f"{name}/kernel").permute(3, 2, 0, 1)
        return self.f.conv_transpose2d(x, kernel, self.get(f"{name}/bias"), 2, padding, output_padding)

    def batch_norm(self, x, name):
        gamma, beta = self.get(f"{name}_norm/gamma"), self.get(f"{name}_norm/beta")
        return self.f.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)

    def unet(self, x, depth):
        """The reference code's nested blocks: leaky, conv, norm, (inside), relu, up, norm, cat."""
        x, skips = self.tensor(x), []
        for level in range(1, depth + 1):
            x = self.conv(x if level == 1 else self.f.leaky_relu(x, 0.2), f"down{level}", 2, 1)
            x = x if level in (1, depth) else self.batch_norm(x, f"down{level}")
            skips.append(x)
        x = skips.pop()
        for level in range(depth - 1, 0, -1):
            x = self.batch_norm(self.up(self.f.relu(x), f"up{level}", 1), f"up{level}")
            x = self.torch.cat([x, skips.pop()], 1)
        return self.array(self.torch.tanh(self.up(self.f.relu(x), "up0", 1)))

    def resnet(self, x, blocks):
        """The reference code's Sequential, instance norm, reflection padding."""
        f, norm = self.f, self.f.instance_norm
        x = f.pad(self.tensor(x), (3, 3, 3, 3), mode="reflect")
        x = f.relu(norm(self.conv(x, "first")))
        for level in (1, 2):
            x = f.relu(norm(self.conv(x, f"down{level}", 2, 1)))
        for number in range(1, blocks + 1):
            y = f.relu(norm(self.conv(f.pad(x, (1, 1, 1, 1), mode="reflect"), f"block{number}a")))
            x = x + norm(self.conv(f.pad(y, (1, 1, 1, 1), mode="reflect"), f"block{number}b"))
        for level in (2, 1):
            x = f.relu(norm(self.up(x, f"up{level}", 1, output_padding=1)))
        return self.array(self.torch.tanh(self.conv(f.pad(x, (3, 3, 3, 3), mode="reflect"), "last")))

    def patch(self, x, layers):
        """NLayerDiscriminator: every convolution pads one zero."""
        x = self.f.leaky_relu(self.conv(self.tensor(x), "conv1", 2, 1), 0.2)
        for number in range(2, layers + 2):
            x = self.conv(x, f"conv{number}", 2 if number <= layers else 1, 1)
            x = self.f.leaky_relu(self.batch_norm(x, f"conv{number}"), 0.2)
        return self.array(self.conv(x, f"conv{layers + 2}", 1, 1))


def test_unet_is_pytorchs():
    network = randomize(build_generator(Generator(filters=3), (16, 24), 3, 2))
    x = images(size=(16, 24))
    expected = Twin(network).unet(x, depth=3)
    np.testing.assert_allclose(np.asarray(network(x, training=False)), expected, atol=2e-5)
    assert expected.shape == (1, 16, 24, 2)


def test_resnet_is_pytorchs():
    network = randomize(
        build_generator(Generator(kind="resnet", filters=2, blocks=2, norm="instance", dropout=0), (16, 24), 3, 1)
    )
    x = images(size=(16, 24))
    np.testing.assert_allclose(np.asarray(network(x)), Twin(network).resnet(x, blocks=2), atol=2e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_patchgan_is_pytorchs(layers):
    network = randomize(build_discriminator(Discriminator(filters=2, layers=layers), (32, 40), 3, 1))
    condition, image = images(3, (32, 40)), images(1, (32, 40), seed=2)
    expected = Twin(network).patch(np.concatenate([condition, image], -1), layers)
    np.testing.assert_allclose(np.asarray(network([condition, image], training=True)), expected, atol=1e-4)


def test_keras_same_alignment_is_another_network():
    options = {"kind": "resnet", "filters": 2, "blocks": 1, "norm": "instance", "dropout": 0}
    ours = randomize(build_generator(Generator(**options), (16, 16), 3, 3))
    same = randomize(build_generator(Generator(**options, padding="same"), (16, 16), 3, 3))
    x = images()
    assert np.asarray(same(x)).shape == (1, 16, 16, 3)
    assert np.abs(np.asarray(ours(x)) - np.asarray(same(x))).max() > 0.01


def layer_names(network):
    return [layer.name for layer in network.layers]


def test_relu_before_the_concat_leaves_the_skip_leaky():
    network = build_generator(Generator(filters=2, relu="before_concat", bottleneck_leaky=True), (8, 8), 1, 1)
    names = layer_names(network)
    assert names.index("up1_relu") < names.index("up1_concat")
    assert network.get_layer("up1_skip").negative_slope == pytest.approx(0.2)
    assert "bottleneck_leaky" in names and "bottleneck_relu" not in names


def test_resized_decoder_has_the_filters_that_it_is_given_from_the_outermost_inwards():
    settings = Generator(filters=2, upsampling="resize", decoder_filters=(3, 5, 7))
    network = build_generator(settings, (16, 16), 1, 1)
    assert [network.get_layer(f"up{level}").filters for level in (1, 2, 3)] == [3, 5, 7]
    assert network.get_layer("up1").strides == (1, 1)


def test_bottleneck_norm_and_dropout_are_where_they_are_asked_for():
    names = layer_names(build_generator(Generator(filters=2, bottleneck_norm=True, dropout_blocks=2), (32, 32), 3, 3))
    assert "down5_norm" in names and "down1_norm" not in names
    assert [name for name in names if name.endswith("dropout")] == ["up4_dropout", "up3_dropout"]
    whole = Generator(filters=1, dropout_first=1)  # the PyTorch code: three of its blocks, none of them the innermost
    names = layer_names(build_generator(whole, (256, 256), 3, 3))
    assert [name for name in names if name.endswith("dropout")] == ["up6_dropout", "up5_dropout", "up4_dropout"]
    assert "down5_norm" not in layer_names(build_generator(Generator(filters=2), (32, 32), 3, 3))


def test_block_norm_is_that_of_the_residual_blocks_alone():
    settings = Generator(kind="resnet", filters=2, blocks=1, norm="instance_affine", block_norm="batch", dropout=0)
    network = build_generator(settings, (16, 16), 3, 3)
    kinds = {layer.name: type(layer).__name__ for layer in network.layers if layer.name.endswith("_norm")}
    assert {kinds[name] for name in ("block1a_norm", "block1b_norm")} == {"BatchNormalization"}
    assert {kind for name, kind in kinds.items() if not name.startswith("block")} == {"InstanceNormalization"}
    assert network.get_layer("first_norm").affine


@pytest.mark.parametrize("bias", ["auto", "all", "none"])
def test_biases_are_where_they_are_asked_for(bias):
    G = build_generator(Generator(filters=2, bias=bias), (8, 8), 3, 3)
    D = build_discriminator(Discriminator(filters=2, layers=2, bias=bias), (32, 32), 3, 3)
    biased = {layer.name for network in (G, D) for layer in network.layers if getattr(layer, "use_bias", False)}
    # The last convolution always has one; the discriminator's first has no norm after it.
    expected = {"auto": {"up0", "conv1", "conv4"}, "none": {"up0", "conv4"}}
    expected["all"] = {"down1", "down2", "down3", "up2", "up1", "up0", "conv1", "conv2", "conv3", "conv4"}
    assert biased == expected[bias]


# layers, stride_one -> receptive field; the paper's table: 1 (pixel), 16, 70, 286; the Keras tutorial's six: 142
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"kind": "pixel"}, 1),
        ({"layers": 1}, 16),
        ({"layers": 2}, 34),
        ({"layers": 3}, 70),
        ({"layers": 4}, 142),
        ({"layers": 5}, 286),
        ({"layers": 4, "stride_one": False}, 94),
    ],
)
def test_receptive_field_by_rule_and_by_experiment(settings, field):
    settings = Discriminator(filters=1, norm="none", conditional=False, **settings)
    size = 2 * field + 64 - (2 * field) % 32
    network = build_discriminator(settings, (size, size), 1, 1)
    assert receptive_field(network) == field
    for variable in network.weights:
        variable.assign(np.ones(tuple(variable.shape), np.float32) * 0.01)
    # One row of ones at a time would be slow: a lit pixel is seen by outputs whose windows hold it.
    rows = []
    dark = np.asarray(network(np.zeros((1, size, size, 1), np.float32)))
    middle = dark.shape[1] // 2
    stride = int(np.prod([one for _, one in convolutions(settings)]))
    for offset in range(stride):
        x = np.zeros((1, size, size, 1), np.float32)
        x[0, size // 2 + offset, size // 2] = 1e4
        rows.append(int((np.asarray(network(x)) != dark).any(axis=(0, 2, 3)).sum()))
    # Over one stride of places the pixel is within `field` windows in all.
    assert sum(rows) == field
    assert middle > 0


def test_minibatch_discrimination_by_hand():
    layer, x = MinibatchDiscrimination(kernels=4, dims=3), images(1, (1, 6), 3)[:, 0, :, 0]
    layer.build(x.shape)
    kernel = np.random.default_rng(3).normal(0, 0.5, (6, 12)).astype(np.float32)
    layer.kernel.assign(kernel)
    rows = (x @ kernel).reshape(3, 4, 3)
    expected = [
        [sum(np.exp(-np.abs(rows[i, k] - rows[j, k]).sum()) for j in range(3)) for k in range(4)] for i in range(3)
    ]
    np.testing.assert_allclose(np.asarray(layer(x)), expected, rtol=1e-5)
    # Alone in its batch an example is near to itself only.
    np.testing.assert_array_equal(np.asarray(layer(x[:1])), 1)


def test_whole_image_discriminator_goes_down_to_one_value():
    settings = Discriminator(kind="minibatch", filters=1, padding="same", conditional=False)
    network = build_discriminator(settings, (32, 32), 1, 1)
    assert network.get_layer("flatten").output.shape == (None, 8)
    assert network.output.shape == (None, 2)


def test_whole_image_discriminator_still_learns_where_it_is_sure_of_itself():
    settings = Discriminator(kind="minibatch", filters=2, padding="same", conditional=False)
    network = build_discriminator(settings, (32, 32), 1, 1)
    chance = np.random.default_rng(0)
    for weight in network.trainable_weights:
        weight.assign(chance.normal(0, 0.5, weight.shape))
    network.get_layer("score").bias.assign([-18, 18])
    one, other = (np.asarray(network(images(1, (32, 32), seed=seed), training=True)) for seed in (1, 2))
    assert (np.abs(one - other) > 1e-3).all()


@pytest.mark.parametrize(
    ("settings", "normed"),
    [
        ({"kind": "minibatch", "padding": "same"}, ["conv2", "conv3", "conv4"]),
        ({"padding": "same", "layers": 5}, ["conv2", "conv3", "conv4"]),
        ({"padding": "same", "layers": 5, "norm": "instance_affine"}, ["conv2", "conv3", "conv4"]),
    ],
)
def test_a_discriminator_sees_a_batch_of_one_image_that_comes_down_to_one_place(settings, normed):
    network = build_discriminator(Discriminator(filters=2, conditional=False, **settings), (32, 32), 1, 1)
    chance = np.random.default_rng(0)
    for weight in network.trainable_weights:
        weight.assign(chance.normal(0, 0.5, weight.shape))
    one, other = (np.asarray(network(images(1, (32, 32), seed=seed), training=True)) for seed in (1, 2))
    assert (one != other).all()
    # With no norm after it that would take its mean, the convolution has a bias.
    assert network.get_layer("conv5").use_bias
    assert [layer.name.split("_")[0] for layer in network.layers if layer.name.endswith("_norm")] == normed


def test_colours_are_changed_of_pictures_alone():
    settings = Discriminator(filters=1, augment=("colour", "translation"))
    for channels in (1, 3):
        build_discriminator(settings, (32, 32), 1, channels)
    with pytest.raises(
        UserError, match=r"discriminator\.augment: colour changes grey and RGB images, and these are two"
    ):
        build_discriminator(settings, (32, 32), 1, 2)


def test_unconditional_discriminator_takes_the_image_alone():
    assert len(build_discriminator(Discriminator(filters=1, conditional=False), (64, 64), 3, 2).inputs) == 1
    assert [t.shape[-1] for t in build_discriminator(Discriminator(filters=1), (64, 64), 3, 2).inputs] == [3, 2]


@pytest.mark.parametrize(
    ("settings", "size", "nearest"),
    [
        ({}, (99, 64), "[100, 64]"),
        ({"depth": 8}, (200, 300), "[256, 256]"),
        ({"depth": 5}, (48, 64), "[64, 64]"),
        ({"kind": "resnet"}, (30, 33), "[32, 32]"),
        ({"kind": "resnet"}, (4, 64), "[8, 64]"),
    ],
)
def test_sizes_that_do_not_come_back_name_the_nearest(settings, size, nearest):
    with pytest.raises(UserError, match="nearest is crop_size") as caught:
        build_generator(Generator(filters=1, **settings), size, 3, 3)
    assert nearest in str(caught.value)
    assert "\n" not in str(caught.value)


def test_depth_follows_from_the_size():
    assert unet_depth(Generator(), (256, 256)) == 8
    assert unet_depth(Generator(), (1024, 512)) == 8
    assert unet_depth(Generator(), (192, 320)) == 6
    assert unet_depth(Generator(depth=3), (256, 256)) == 3


@pytest.mark.parametrize("depth", [9, 12])
def test_a_depth_that_can_be_asked_for_can_be_had(depth):
    assert unet_depth(Generator(depth=depth), (2**depth, 2**depth)) == depth
    with pytest.raises(UserError, match=rf"depth {depth} cannot halve"):
        unet_depth(Generator(depth=depth), (256, 256))


def test_too_deep_a_discriminator_is_an_error():
    with pytest.raises(UserError, match=r"5 layers is too deep for 32 x 32 px"):
        build_discriminator(Discriminator(filters=1, layers=5), (32, 32), 3, 3)
