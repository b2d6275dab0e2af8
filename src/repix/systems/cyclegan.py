"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): translation both ways, without pairs."""

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
    """Build CycleGAN: two generators (one optimizer group), two discriminators (the other).

    The generators minimise the adversarial loss both ways + cycle L1 both ways (equations 1-3) + identity
    L1 both ways (section 5.2), then the discriminators minimise (real + fake) / 2, each on
    its own domain, the fakes drawn from a pool of earlier ones (section 4). The order,
    generators first, is the reference code's. The identity term needs domains with equal
    channel counts and is left out where they differ.

    Args and errors: see :func:`repix.systems.system.build`.
    """
    # X is the source's domain, Y the target's; G: X -> Y and F: Y -> X, as in the paper.
    G = build_generator(recipe.generator, size, source, target, "generator")
    F = build_generator(recipe.generator, size, target, source, "inverse_generator")
    D_X = build_discriminator(recipe.discriminator, size, target, source, "source_discriminator")
    D_Y = build_discriminator(recipe.discriminator, size, source, target, "target_discriminator")
    adversarial = losses.ADVERSARIAL[recipe.loss.gan]
    weight = recipe.loss.discriminator
    identity = recipe.loss.identity if source == target else 0.0
    pools = (
        {
            "source_fakes": Pool(recipe.pool, (*size, source), "source_fakes"),
            "target_fakes": Pool(recipe.pool, (*size, target), "target_fakes"),
        }
        if recipe.pool
        else {}
    )

    changes = recipe.discriminator.augment

    def score(batch: Batch, discriminator, look: int, image):
        """Return what a discriminator says of an image; each of the six looks of an iteration has its own uniforms."""
        if changes:
            uniforms = augmentation.of_look(batch.uniforms, 5, look)
            image = augmentation.augment(image, None, uniforms, changes)[0]
        return discriminator(image, training=True)

    def generate(batch: Batch) -> Images:
        fake_y, fake_x = G(batch.source, training=True), F(batch.target, training=True)
        generated = {
            "fake_x": fake_x,
            "fake_y": fake_y,
            "cycled_x": F(fake_y, training=True),
            "cycled_y": G(fake_x, training=True),
        }
        if identity:
            generated["same_x"] = F(batch.source, training=True)
            generated["same_y"] = G(batch.target, training=True)
        return generated

    def generator_loss(batch: Batch, generated: Images, gradient):
        fool_y = adversarial.fool(score(batch, D_Y, 0, generated["fake_y"]))
        fool_x = adversarial.fool(score(batch, D_X, 1, generated["fake_x"]))
        cycle_x = losses.l1(generated["cycled_x"], batch.source)
        cycle_y = losses.l1(generated["cycled_y"], batch.target)
        terms = {"g_gan_y": fool_y, "g_gan_x": fool_x, "g_cycle_x": cycle_x, "g_cycle_y": cycle_y}
        loss = recipe.loss.gan_weight * (fool_x + fool_y) + recipe.loss.cycle * (cycle_x + cycle_y)
        if identity:
            terms["g_identity_x"] = losses.l1(generated["same_x"], batch.source)
            terms["g_identity_y"] = losses.l1(generated["same_y"], batch.target)
            loss = loss + identity * (terms["g_identity_x"] + terms["g_identity_y"])
        return loss, terms

    def real_loss(batch: Batch, generated: Images, gradient):
        real_x = adversarial.real(score(batch, D_X, 2, batch.source))
        real_y = adversarial.real(score(batch, D_Y, 3, batch.target))
        loss, terms = weight * (real_x + real_y), {"d_real_x": real_x, "d_real_y": real_y}
        if recipe.loss.r1:
            for name, D, own, look in (("x", D_X, batch.source, 2), ("y", D_Y, batch.target, 3)):
                terms[f"d_r1_{name}"] = losses.zero_centred_penalty(gradient, partial(score, batch, D, look), own)
                loss = loss + recipe.loss.r1 * terms[f"d_r1_{name}"]
        return loss, terms

    def shown(batch: Batch, generated: Images):
        if not pools:
            return generated["fake_x"], generated["fake_y"]
        return (
            pools["source_fakes"].show(generated["fake_x"], batch.uniforms[:, 0:2]),
            pools["target_fakes"].show(generated["fake_y"], batch.uniforms[:, 2:4]),
        )

    def fake_loss(batch: Batch, generated: Images, gradient):
        shown_x, shown_y = shown(batch, generated)
        fake_x = adversarial.fake(score(batch, D_X, 4, shown_x))
        fake_y = adversarial.fake(score(batch, D_Y, 5, shown_y))
        loss = weight * (fake_x + fake_y)
        terms = {"d_fake_x": fake_x, "d_fake_y": fake_y}
        if recipe.loss.gan == "wgangp":
            mix = ops.reshape(batch.uniforms[:, 4], (-1, 1, 1, 1))
            for name, D, own, other in (("x", D_X, batch.source, shown_x), ("y", D_Y, batch.target, shown_y)):
                judged = partial(D, training=True)
                terms[f"d_penalty_{name}"] = losses.gradient_penalty(gradient, judged, own, other, mix)
                loss = loss + recipe.loss.gradient_penalty * terms[f"d_penalty_{name}"]
        return loss, terms

    def discriminator_loss(batch: Batch, generated: Images, gradient):
        real, real_terms = real_loss(batch, generated, gradient)
        fake, fake_terms = fake_loss(batch, generated, gradient)
        return real + fake, real_terms | fake_terms

    return System(
        networks={"generator": G, "inverse_generator": F, "source_discriminator": D_X, "target_discriminator": D_Y},
        optimizer_groups={
            "generator": ("generator", "inverse_generator"),
            "discriminator": ("source_discriminator", "target_discriminator"),
        },
        translators={Direction.SOURCE_TO_TARGET: "generator", Direction.TARGET_TO_SOURCE: "inverse_generator"},
        generate=generate,
        schedule=gan_schedule(
            recipe,
            generator=generator_loss,
            discriminator=discriminator_loss,
            real=real_loss,
            fake=fake_loss,
            generator_first=True,
        ),
        pools=pools,
        uniforms=5 + (6 * augmentation.UNIFORMS if changes else 0),
    )
