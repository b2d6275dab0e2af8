"""``models``: how one learns. Sizes and channel counts come from the data set, not from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_serializer, model_validator

from repix.cells import NAME, Cell, CellName
from repix.config.reader import Settings, nearest, not_of_kind, only
from repix.config.run import ProfileName
from repix.registry import SYSTEMS

Norm = Literal["batch", "instance", "instance_affine", "none"]
Bias = Literal["auto", "all", "none"]


class Generator(Settings):
    """The network that translates.

    Attributes:
        kind: ``unet`` (Isola et al. 2016, section 6.1.1) or ``resnet`` (Zhu et al. 2017,
            appendix 7.2).
        filters: filters of the first convolution; deeper ones have up to 8 times as many.
        depth: U-Net: halvings from the image to the bottleneck; null takes as many as the
            size allows, at most 8.
        blocks: ResNet: residual blocks; null takes 9 from 256 px on and 6 below.
        norm: normalisation after convolutions: ``batch``, ``instance`` (without parameters,
            as CycleGAN's), ``instance_affine`` (with a learned scale and shift) or ``none``.
        block_norm: ResNet: norm within the residual blocks; null takes ``norm``.
        norm_epsilon: added to the variance under the root.
        bias: which convolutions have a bias beside the last, which always has: ``auto`` (the
            reference code's rule: all, but none before a batch norm), ``all`` (Keras'
            default) or ``none``.
        leaky_slope: U-Net: slope of the encoder's LeakyReLU for negative values.
        bottleneck_norm: U-Net: norm after the innermost convolution. At 1x1 and batch 1 a
            batch norm outputs its beta alone there.
        bottleneck_leaky: U-Net: LeakyReLU after the innermost convolution, not ReLU.
        upsampling: U-Net: ``transposed`` convolution 4x4 stride 2, or ``resize``: nearest
            upsampling and a convolution 4x4 stride 1.
        decoder_filters: U-Net: filters of the decoder blocks from the outermost inwards,
            where they are not those of the encoder.
        relu: U-Net: ReLU ``after_concat`` of block and skip, or ``before_concat`` on the
            block alone.
        dropout: rate in ``dropout_blocks`` decoder blocks, or in each residual block.
        dropout_blocks: U-Net: how many decoder blocks have dropout.
        dropout_first: U-Net: the first of them, counted from the innermost: 0 as the paper and its
            Lua code, 1 as the PyTorch code, whose innermost block has none.
        padding: ResNet: ``reflect`` (mirrored borders, strides aligned as the reference code
            has them) or ``same`` (zeros, aligned as Keras' own ``same``).
    """

    KIND = "kind"
    kind: Literal["unet", "resnet"] = "unet"
    filters: int = Field(default=64, ge=1)
    depth: int | None = only("unet", default=None, ge=2, le=12)
    blocks: int | None = only("resnet", default=None, ge=1)
    norm: Norm = "batch"
    block_norm: Norm | None = only("resnet", default=None)
    norm_epsilon: float = Field(default=1e-5, gt=0)
    bias: Bias = "auto"
    leaky_slope: float = only("unet", default=0.2, ge=0)
    bottleneck_norm: bool = only("unet", default=False)
    bottleneck_leaky: bool = only("unet", default=False)
    upsampling: Literal["transposed", "resize"] = only("unet", default="transposed")
    decoder_filters: tuple[Annotated[int, Field(ge=1)], ...] | None = only("unet", default=None)
    relu: Literal["after_concat", "before_concat"] = only("unet", default="after_concat")
    dropout: float = Field(default=0.5, ge=0, lt=1)
    dropout_blocks: int = only("unet", default=3, ge=0)
    dropout_first: int = only("unet", default=0, ge=0)
    padding: Literal["reflect", "same"] = only("resnet", default="reflect")


class Discriminator(Settings):
    """The network that tells real from fake.

    Attributes:
        kind: ``patch`` (n layers), ``pixel`` (1x1 convolutions) or ``minibatch`` (one score
            for the whole image, beside minibatch discrimination, as in pix2pix_book).
        filters: filters of the first convolution.
        layers: patch: convolutions of stride 2: 1, 2, 3, 4, 5 see 16, 34, 70, 142, 286 px.
        norm, norm_epsilon, bias, leaky_slope: as for the generator. No norm stands where an image has
            come down to one place: at batch 1 it would put out its shift alone, whatever the image.
        padding: ``one`` (one zero on each side, as PyTorch) or ``same``.
        stride_one: patch: whether a convolution of stride 1 stands before the last one.
        conditional: whether it sees the source beside the image that it scores.
        kernels, kernel_dims: minibatch discrimination (Salimans et al. 2016, section 3.2).
        augment: how real and generated images alike are changed before it sees them
            (differentiable augmentation, Zhao et al. 2020): any of ``colour``, ``translation``,
            ``cutout``. For small data sets: it cannot learn their images by heart.
    """

    KIND = "kind"
    kind: Literal["patch", "pixel", "minibatch"] = "patch"
    filters: int = Field(default=64, ge=1)
    layers: int = only("patch", default=3, ge=1, le=8)
    norm: Norm = "batch"
    norm_epsilon: float = Field(default=1e-5, gt=0)
    bias: Bias = "auto"
    leaky_slope: float = Field(default=0.2, ge=0)
    padding: Literal["one", "same"] = "one"
    stride_one: bool = only("patch", default=True)
    conditional: bool = True
    kernels: int = only("minibatch", default=100, ge=1)
    kernel_dims: int = only("minibatch", default=5, ge=1)
    augment: tuple[Literal["colour", "translation", "cutout"], ...] = ()


class Loss(Settings):
    """What generators and discriminators minimise.

    Attributes:
        gan: ``vanilla`` (cross-entropy on logits), ``lsgan`` (Mao et al. 2017),
            ``lsgan_sigmoid`` (least squares on sigmoids, as in cyclegan_book), ``wgangp``
            (Gulrajani et al. 2017) or ``softmax`` (two classes).
        gan_weight: weight of the adversarial term in the generator's loss.
        l1: weight of the L1 term (paired systems).
        cycle: weight of the cycle term (CycleGAN).
        identity: weight of the identity term (CycleGAN).
        discriminator: weight of the discriminator's loss. The paper halves it "to slow it" (section 3.3); Adam divides
            by the gradient's own size, so that its epsilon alone feels a weight (but of wgangp, whose penalty has its
            own): see ``discriminator_rate``.
        gradient_penalty: weight of the penalty (wgangp).
        r1: gamma of the penalty on the discriminator's slope at real images (Mescheder et al. 2018 take 10).
    """

    KIND = "gan"

    gan: Literal["vanilla", "lsgan", "lsgan_sigmoid", "wgangp", "softmax"] = "vanilla"
    gan_weight: float = Field(default=1.0, ge=0)
    l1: float = Field(default=100.0, ge=0)
    cycle: float = Field(default=10.0, ge=0)
    identity: float = Field(default=5.0, ge=0)
    discriminator: float = Field(default=0.5, gt=0)
    gradient_penalty: float = only("wgangp", default=10.0, ge=0)
    r1: float = only("vanilla", "lsgan", "lsgan_sigmoid", default=0.0, ge=0)


# Terms of the loss that some systems do not have; a system that is not here may use any.
TERMS = {"pix2pix": {"l1"}, "cyclegan": {"cycle", "identity"}}


def loss_options(system: str, gan: str) -> list[str]:
    """Return the keys of ``loss`` that a system has under an adversarial loss."""
    others = set().union(*TERMS.values()) - TERMS[system] if system in TERMS else set()
    return [name for name in Loss.options(gan) if name not in others]


class Optimizer(Settings):
    """Adam (Kingma and Ba 2015), one for each optimizer group.

    Attributes:
        learning_rate: alpha, before the decay of the last epochs.
        discriminator_rate: that of the discriminators, where it is another: two time-scale rates (Heusel et
            al. 2017). It decays alike.
        beta_1, beta_2: decay rates of the moments.
        epsilon: added to the root of the second moment.
        epsilon_hat: where it is added: true to the root as it is carried along (the remark that ends
            section 2, where it is called epsilon hat; TensorFlow, Keras, Torch7), false to the
            root with its bias corrected (algorithm 1; PyTorch since 1.3).
    """

    learning_rate: float = Field(default=0.0002, gt=0)
    discriminator_rate: float | None = Field(default=None, gt=0)
    beta_1: float = Field(default=0.5, ge=0, lt=1)
    beta_2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    epsilon_hat: bool = True

    def share(self, group: str) -> float:
        """Return the learning rate of an optimizer group as a part of ``learning_rate``."""
        own = None if group == "generator" else self.discriminator_rate
        return 1.0 if own is None else own / self.learning_rate


class StartFrom(Settings):
    """Where a training starts, in place of first weights: from one of ``cell``, ``model`` and ``file``.

    Attributes:
        cell: a cell of this repository, in the grid or not: the weights of ``runs/<cell>/``.
        model: the same, by its model: the cell with the data set and the seed of the one that starts.
        file: a ``.keras`` or ``.npz`` file, or a folder of exports (``exports/<cell>``).
        schedule: ``continue`` takes up the cell's finished state and trains to ``epochs`` in all: needs
            ``keep_state: true`` of the cell's recipe; ``new`` begins at epoch 0, with the rates of this recipe.
        weights: which of a cell's: ``last``, ``best`` or ``ema``.
        networks: ``all``, or ``generator``: those that translate, beside fresh discriminators. A file, best
            and ema hold no others.
        moments: whether Adam's moments are taken over as well, under a new schedule.
        freeze: layers of the generators that keep their weights, by the beginnings of their names:
            ``[down1, down2]``. `repix describe MODEL --json` names them.
    """

    cell: CellName | None = None
    model: str | None = None
    file: str | None = None
    schedule: Literal["new", "continue"] = "new"
    weights: Literal["last", "best", "ema"] = "last"
    networks: Literal["all", "generator"] = "all"
    moments: bool = False
    freeze: tuple[str, ...] = ()

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, model: str | None) -> str | None:
        if model is not None and not NAME.match(model):
            raise ValueError("names are letters, digits and underscores")
        return model

    @field_validator("file")
    @classmethod
    def _names_a_file(cls, file: str | None) -> str | None:
        if file == "":
            raise ValueError("is empty; name a .keras or .npz file, or a folder of exports")
        return file

    @field_validator("freeze")
    @classmethod
    def _says_something(cls, freeze: tuple[str, ...]) -> tuple[str, ...]:
        if "" in freeze:
            raise ValueError("an empty name is the beginning of all: leave it out")
        return freeze

    @model_validator(mode="after")
    def _fits(self) -> StartFrom:
        if (self.cell, self.model, self.file).count(None) != 2:
            raise ValueError("needs one of cell, model and file")
        if self.schedule == "continue":
            if self.file is not None:
                raise ValueError("schedule: continue needs a cell's state, which no file holds: set schedule: new")
            if (self.weights, self.networks) != ("last", "all") or self.moments or self.freeze:
                raise ValueError("schedule: continue takes all as it is: leave out weights, networks, moments, freeze")
        if self.networks == "all" and (self.file is not None or self.weights != "last"):
            held = "a file" if self.file is not None else self.weights
            raise ValueError(f"{held} holds no discriminator: set networks: generator")
        if self.file is not None and self.weights != "last":
            raise ValueError("a file has one set of weights: leave out weights")
        if self.moments and (self.file is not None or self.weights != "last"):
            raise ValueError("moments: they are kept for a cell's last weights alone")
        return self

    @property
    def takes_state(self) -> bool:
        """Whether it needs the finished state, not only weights."""
        return self.schedule == "continue" or self.moments

    def parent(self, cell: Cell) -> str | None:
        """Return the name of the cell that ``cell`` starts from; None where it starts from a file."""
        return self.cell if self.model is None else Cell(cell.dataset, self.model, cell.seed).name


# What an entry of a system takes where it says nothing, beside the defaults of the fields, which are pix2pix's.
DEFAULTS: dict[str, dict[str, Any]] = {
    "cyclegan": {  # its authors' code
        "generator": {"kind": "resnet", "norm": "instance", "dropout": 0.0},
        "discriminator": {"norm": "instance", "conditional": False},
        "loss": {"gan": "lsgan"},
        "pool": 50,
    }
}


class Recipe(Settings):
    """One entry of ``models``: networks, losses, optimiser and schedule, where they differ from the defaults.

    The defaults are those of pix2pix's reference code, and for other systems what :data:`DEFAULTS` says.

    Attributes:
        system: a name in :data:`repix.registry.SYSTEMS`.
        batch_size: examples in a step.
        epochs: passes over the training split.
        decay_epochs: over this many last epochs the learning rate falls linearly to 0; over all of
            them where there are no more.
        sampling: ``permutation`` (each example once in an epoch) or ``replacement``.
        updates: the updates of an iteration and their order: ``together`` (the discriminator once,
            on real and fake, and the generator once, in the order of the system's reference
            code), ``simultaneous`` (the same, each against the other as it was before),
            ``separate`` (the discriminator on real, then on fake, then the generator) or
            ``alternate`` (the discriminator on real in even iterations, on fake in odd ones).
        discriminator_updates: iterations with an update of the discriminator for each one of the
            generator (WGAN's n_critic): the generator is updated in every n-th iteration only.
        pool: size of the pool of earlier fakes shown to discriminators (0: none); a conditional one
            is shown each beside its own source.
        ema: decay of an exponential moving average of the generators' weights, such as 0.999
            (null: none). After n iterations it is at most (1 + n) / (10 + n), so that the first
            weights are soon forgotten. It is a variant, ``ema``, beside ``last`` and ``best``.
        initializer: ``normal`` (kernels N(0, 0.02), norm scales N(1, 0.02)), ``normal_kernels``
            (the same kernels, scales 1) or ``glorot`` (uniform kernels, scales 1).
        profile: execution profile where ``run.profile`` is auto: ``fast``, ``portable``, whose
            bits do not depend on the CPU and which takes about twice as long at 256 px, or
            ``jax`` (training on Keras' JAX backend, for a GPU; ``jax-4`` for four).
        precision: ``float32``, ``tf32`` (float32 whose products a GPU may round to 10 bits; a
            CPU computes float32) or ``bfloat16`` (networks compute in it, weights stay float32).
        validate_every: epochs between scorings of the val split, by which the best
            weights are chosen.
        picture_every: epochs between sample pictures.
        checkpoint_every: epochs between checkpoints.
        keep_state: whether ``runs/<cell>/`` also holds the finished state (weights, moments, pools, loss
            table: about three times the weights), from which another cell can continue.
        start_from: where the training starts, if not from first weights.
    """

    system: str
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    batch_size: int = Field(default=1, ge=1)
    epochs: int = Field(default=200, ge=1)
    decay_epochs: int = Field(default=0, ge=0)
    sampling: Literal["permutation", "replacement"] = "permutation"
    updates: Literal["together", "simultaneous", "separate", "alternate"] = "together"
    discriminator_updates: int = Field(default=1, ge=1, le=1000)
    pool: int = Field(default=0, ge=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    initializer: Literal["normal", "normal_kernels", "glorot"] = "normal"
    profile: ProfileName = "fast"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    validate_every: int = Field(default=10, ge=1)
    picture_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=5, ge=1)
    keep_state: bool = False
    start_from: StartFrom | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_its_system(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("system"), str):
            return given
        filled = dict(given)
        for name, value in DEFAULTS.get(given["system"], {}).items():
            if not isinstance(value, Mapping):
                filled.setdefault(name, value)
            elif isinstance(own := filled.get(name, {}), Mapping):
                filled[name] = value | own
        return filled

    @field_validator("system")
    @classmethod
    def _known(cls, system: str) -> str:
        if system not in SYSTEMS:
            raise ValueError(f"is no system{nearest(system, SYSTEMS)}; there are {', '.join(SYSTEMS)}")
        return system

    @field_validator("loss")
    @classmethod
    def _terms_of_the_system(cls, loss: Loss, info: ValidationInfo) -> Loss:
        system = info.data.get("system")
        has = loss_options(system, loss.gan) if system else list(Loss.model_fields)
        for name in sorted(loss.model_fields_set - set(has)):
            raise not_of_kind(system, name, has)
        return loss

    @model_serializer(mode="wrap")
    def _without_terms_of_other_systems(self, dump):
        whole = dump(self)
        if isinstance(whole.get("loss"), dict):
            has = loss_options(self.system, self.loss.gan)
            whole["loss"] = {name: value for name, value in whole["loss"].items() if name in has}
        # A record says of these what was asked for, and nothing where nothing was.
        for group, name in ((whole, "keep_state"), (whole, "start_from"), (whole.get("loss"), "r1")):
            if isinstance(group, Mapping) and not group.get(name, True):
                del group[name]
        return whole

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.loss.gan == "softmax" and self.discriminator.kind != "minibatch":
            raise ValueError("loss.gan: softmax needs discriminator.kind: minibatch (two outputs)")
        if self.discriminator.kind == "minibatch" and self.loss.gan != "softmax":
            raise ValueError("discriminator.kind: minibatch has two outputs: set loss.gan: softmax")
        if self.system == "cyclegan" and self.discriminator.conditional:
            raise ValueError("a cyclegan's discriminator sees one image: set discriminator.conditional: false")
        if self.loss.gan == "wgangp" and self.discriminator.augment:
            raise ValueError("discriminator.augment: not with loss.gan: wgangp, whose penalty is on images as they are")
        if self.loss.gan == "wgangp" and self.updates not in ("together", "simultaneous"):
            raise ValueError("loss.gan: wgangp needs real and fake in one step: set updates: together")
        return self

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch (counted from 0): constant, then linear to 0.

        The rule of the reference code: with c constant and d decaying epochs the rate is
        multiplied by 1 - max(0, epoch + 1 - c) / (d + 1).
        """
        # A quick trial lowers `epochs` alone (`-S models.x.epochs=2`): it has no constant epochs, then.
        decay = min(self.decay_epochs, self.epochs)
        if not decay:
            return self.optimizer.learning_rate
        constant = self.epochs - decay
        return self.optimizer.learning_rate * (1.0 - max(0, epoch + 1 - constant) / (decay + 1))
