"""pix2pix (Isola et al. 2016, arXiv 1611.07004): a conditional GAN with an L1 term."""

from __future__ import annotations

from keras import ops

from repix.config.models import Recipe
from repix.directions import Direction
from repix.models import losses
from repix.models.discriminators import build_discriminator
from repix.models.generators import build_generator
from repix.systems.system import Batch, Images, Pool, System, gan_schedule


def build(recipe: Recipe, size: tuple[int, int], source: int, target: int) -> System:
    """Build pix2pix: a generator G and a discriminator D that sees the source beside the image.

    D minimises (real + fake) / 2 on a generated image that is a constant to it (section 3.3:
    the objective of D is divided by 2), then G minimises fool + 100 L1 (equation 4), against
    the D that has just been updated, as the reference code does. G runs once per iteration:
    the image that D is updated on is the image that G is updated on.

    Args and errors: see :func:`repix.systems.system.build`.
    """
    G = build_generator(recipe.generator, size, source, target)
    D = build_discriminator(recipe.discriminator, size, source, target)
    adversarial = losses.ADVERSARIAL[recipe.loss.gan]
    weight = recipe.loss.discriminator
    pool = Pool(recipe.pool, (*size, target), "fakes") if recipe.pool else None

    def score(batch: Batch, image):
        inputs = [batch.source, image] if recipe.discriminator.conditional else image
        return D(inputs, training=True)

    def generate(batch: Batch) -> Images:
        return {"fake": G(batch.source, training=True)}

    def shown(batch: Batch, generated: Images):
        return pool.show(generated["fake"], batch.uniforms[:, 1:3]) if pool else generated["fake"]

    def real_loss(batch: Batch, generated: Images, gradient):
        loss = adversarial.real(score(batch, batch.target))
        return weight * loss, {"d_real": loss}

    def fake_loss(batch: Batch, generated: Images, gradient):
        loss = adversarial.fake(score(batch, shown(batch, generated)))
        return weight * loss, {"d_fake": loss}

    def discriminator_loss(batch: Batch, generated: Images, gradient):
        fake = shown(batch, generated)
        real_term = adversarial.real(score(batch, batch.target))
        fake_term = adversarial.fake(score(batch, fake))
        loss = weight * (real_term + fake_term)
        terms = {"d_real": real_term, "d_fake": fake_term}
        if recipe.loss.gan == "wgangp":
            mix = ops.reshape(batch.uniforms[:, 0], (-1, 1, 1, 1))
            penalty = losses.gradient_penalty(gradient, lambda x: score(batch, x), batch.target, fake, mix)
            loss = loss + recipe.loss.gradient_penalty * penalty
            terms["d_penalty"] = penalty
        return loss, terms

    def generator_loss(batch: Batch, generated: Images, gradient):
        fool = adversarial.fool(score(batch, generated["fake"]))
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
        uniforms=3,
    )
