"""pix2pix (Isola et al. 2016, arXiv 1611.07004): a conditional GAN with an L1 term."""

from __future__ import annotations

from functools import partial

from keras import ops

from repix.config.models import Recipe
from repix.directions import Direction
from repix.models import augmentation, losses
from repix.models.discriminators import build_discriminator
from repix.models.generators import build_generator
from repix.systems.system import Batch, Images, Pool, System, gan_schedule


def build(recipe: Recipe, size: tuple[int, int], source: int, target: int) -> System:
    """Build pix2pix: a generator G and a discriminator D that sees the source beside the image.

    D minimises (real + fake) / 2 on a generated image that is a constant to it (section 3.3:
    the objective of D is divided by 2), then G minimises its adversarial loss + 100 L1 (equation 4), against
    the D that has just been updated, as the reference code does. G runs once per iteration:
    the image that D is updated on is the image that G is updated on. With a pool D is shown earlier
    images, each beside the source that it was made of.

    Args and errors: see :func:`repix.systems.system.build`.
    """
    G = build_generator(recipe.generator, size, source, target)
    D = build_discriminator(recipe.discriminator, size, source, target)
    adversarial = losses.ADVERSARIAL[recipe.loss.gan]
    weight = recipe.loss.discriminator
    conditional = recipe.discriminator.conditional
    # What D sees is one thing to the pool: an image beside another source would be no pair that G ever made.
    pool = Pool(recipe.pool, (*size, source * conditional + target), "fakes") if recipe.pool else None

    changes = recipe.discriminator.augment

    def score(batch: Batch, condition, image, look: int):
        """Return what D says of an image; each of the three looks of an iteration has uniforms of its own."""
        if changes:
            uniforms = augmentation.of_look(batch.uniforms, 3, look)
            image, condition = augmentation.augment(image, condition if conditional else None, uniforms, changes)
        return D([condition, image] if conditional else image, training=True)

    def generate(batch: Batch) -> Images:
        return {"fake": G(batch.source, training=True)}

    def shown(batch: Batch, generated: Images):
        """Return what D takes for generated: (source, image), of this iteration or from the pool."""
        if pool is None:
            return batch.source, generated["fake"]
        if not conditional:
            return batch.source, pool.show(generated["fake"], batch.uniforms[:, 1:3])
        pairs = ops.concatenate([batch.source, generated["fake"]], axis=-1)
        pairs = pool.show(pairs, batch.uniforms[:, 1:3])
        return pairs[..., :source], pairs[..., source:]

    def add_slope(batch: Batch, gradient, loss, terms: dict):
        """Return a loss of D with R1 added, if the recipe has it: the penalty on D's slope at real images."""
        if not recipe.loss.r1:
            return loss
        real = partial(score, batch, batch.source, look=0)
        terms["d_r1"] = losses.zero_centred_penalty(gradient, real, batch.target)
        return loss + recipe.loss.r1 * terms["d_r1"]

    def real_loss(batch: Batch, generated: Images, gradient):
        loss = adversarial.real(score(batch, batch.source, batch.target, look=0))
        terms = {"d_real": loss}
        return add_slope(batch, gradient, weight * loss, terms), terms

    def fake_loss(batch: Batch, generated: Images, gradient):
        loss = adversarial.fake(score(batch, *shown(batch, generated), look=1))
        return weight * loss, {"d_fake": loss}

    def discriminator_loss(batch: Batch, generated: Images, gradient):
        condition, fake = shown(batch, generated)
        real_term = adversarial.real(score(batch, batch.source, batch.target, look=0))
        fake_term = adversarial.fake(score(batch, condition, fake, look=1))
        loss = weight * (real_term + fake_term)
        terms = {"d_real": real_term, "d_fake": fake_term}
        if recipe.loss.gan == "wgangp":
            mix = ops.reshape(batch.uniforms[:, 0], (-1, 1, 1, 1))
            if pool is not None and conditional:  # between two pairs lies a source, too
                condition = batch.source + mix * (condition - batch.source)
            between = partial(score, batch, condition, look=1)
            penalty = losses.gradient_penalty(gradient, between, batch.target, fake, mix)
            loss = loss + recipe.loss.gradient_penalty * penalty
            terms["d_penalty"] = penalty
        return add_slope(batch, gradient, loss, terms), terms

    def generator_loss(batch: Batch, generated: Images, gradient):
        fool = adversarial.fool(score(batch, batch.source, generated["fake"], look=2))
        l1 = losses.l1(generated["fake"], batch.target)
        return recipe.loss.gan_weight * fool + recipe.loss.l1 * l1, {"g_gan": fool, "g_l1": l1}

    return System(
        networks={"generator": G, "discriminator": D},
        optimizer_groups={"generator": ("generator",), "discriminator": ("discriminator",)},
        translators={Direction.SOURCE_TO_TARGET: "generator"},
        generate=generate,
        schedule=gan_schedule(
            recipe, generator=generator_loss, discriminator=discriminator_loss, real=real_loss, fake=fake_loss
        ),
        pools={"fakes": pool} if pool else {},
        uniforms=3 + (3 * augmentation.UNIFORMS if changes else 0),
    )
