"""Adversarial losses by name. Scores are logits; all results are scalars.

``real(scores)`` and ``fake(scores)`` are what the discriminator minimises for real and for
generated images, ``fool(scores)`` what the generator minimises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops


@dataclass(frozen=True)
class AdversarialLoss:
    """The three terms of an adversarial loss: the discriminator's two and the generator's."""

    real: Callable
    fake: Callable
    fool: Callable


def _cross_entropy(one: int):
    """Return minus the log-probability of class ``one``, for scores (batch, 2)."""

    def loss(scores):
        return ops.mean(ops.logsumexp(scores, axis=-1) - scores[..., one])

    return loss


ADVERSARIAL: dict[str, AdversarialLoss] = {
    # Goodfellow et al. 2014 with the non-saturating generator; softplus(-s) = -log sigmoid(s).
    "vanilla": AdversarialLoss(
        real=lambda s: ops.mean(ops.softplus(-s)),
        fake=lambda s: ops.mean(ops.softplus(s)),
        fool=lambda s: ops.mean(ops.softplus(-s)),
    ),
    # Mao et al. 2017, equation 9 with a = 0, b = c = 1 (without the factor 1/2).
    "lsgan": AdversarialLoss(
        real=lambda s: ops.mean(ops.square(s - 1)),
        fake=lambda s: ops.mean(ops.square(s)),
        fool=lambda s: ops.mean(ops.square(s - 1)),
    ),
    # The same on sigmoid(s): cyclegan_book's last convolution has a sigmoid and its loss is mse.
    "lsgan_sigmoid": AdversarialLoss(
        real=lambda s: ops.mean(ops.square(ops.sigmoid(s) - 1)),
        fake=lambda s: ops.mean(ops.square(ops.sigmoid(s))),
        fool=lambda s: ops.mean(ops.square(ops.sigmoid(s) - 1)),
    ),
    # Gulrajani et al. 2017, equation 3; the penalty is added by the discriminator's loss.
    "wgangp": AdversarialLoss(
        real=lambda s: -ops.mean(s),
        fake=lambda s: ops.mean(s),
        fool=lambda s: -ops.mean(s),
    ),
    # Two classes (0 fake, 1 real), as pix2pix_book's Dense(2) has them.
    "softmax": AdversarialLoss(real=_cross_entropy(1), fake=_cross_entropy(0), fool=_cross_entropy(1)),
}


def l1(one, other):
    """Return the mean absolute difference of two equally shaped tensors."""
    return ops.mean(ops.abs(one - other))


def gradient_penalty(gradient: Callable, score: Callable, real, fake, mix):
    """Return mean((|gradient of the score| - 1)^2) between real and fake images.

    Gulrajani et al. 2017, algorithm 1, lines 4-7.

    Args:
        gradient: ``gradient(f, x)``: the gradient of the scalar f(x), itself differentiable.
        score: from images to scores.
        real, fake: images (batch, height, width, channels).
        mix: uniform random numbers (batch, 1, 1, 1).
    """
    between = real + mix * (fake - real)
    slopes = gradient(lambda x: ops.sum(score(x)), between)
    norms = ops.sqrt(ops.sum(ops.square(slopes), axis=(1, 2, 3)) + 1e-12)
    return ops.mean(ops.square(norms - 1))


def zero_centred_penalty(gradient: Callable, score: Callable, real):
    """Return half the mean of |gradient of the score|^2 at real images: R1 of Mescheder et al. 2018, equation 9.

    The score of an image is the mean of its patches', as in the adversarial losses.

    Args:
        gradient: ``gradient(f, x)``: the gradient of the scalar f(x), itself differentiable.
        score: from images to scores (batch, rows, columns, 1).
        real: images (batch, height, width, channels).
    """
    slopes = gradient(lambda x: ops.sum(ops.mean(score(x), axis=(1, 2, 3))), real)
    return ops.mean(ops.sum(ops.square(slopes), axis=(1, 2, 3))) / 2
