"""pix2pix (Isola et al. 2016, arXiv 1611.07004): a conditional GAN with an L1 term."""

from __future__ import annotations

from keras import ops

from repix.config.models import Recipe
from repix.models import losses
from repix.models.discriminators import build_discriminator
from repix.models.generators import build_generator
from repix.systems.system import Batch, Loss, Move, Pool, System

NEEDS_PAIRS = True


def build(recipe: Recipe, size: tuple[int, int], source: int, target: int) -> System:
    """Build pix2pix: a generator G and a discriminator D that sees the source beside the image.

    D minimises (real + fake) / 2 on a fake that is data to it (section 3.3: the objective
    of D is divided by 2), then G minimises fool + 100 L1 (equation 4), against the D that
    has just moved, as the reference code does. G runs once per iteration: what D judges and
    what G is moved by is one and the same image.

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

    def generate(batch: Batch) -> dict:
        return {"fake": G(batch.source, training=True)}

    def shown(batch: Batch, played: dict):
        return pool.show(played["fake"], batch.draws[:, 1:3]) if pool else played["fake"]

    def judge_real(batch: Batch, played: dict) -> Loss:
        loss = adversarial.real(score(batch, batch.target))
        return weight * loss, {"d_real": loss}

    def judge_fake(batch: Batch, played: dict) -> Loss:
        loss = adversarial.fake(score(batch, shown(batch, played)))
        return weight * loss, {"d_fake": loss}

    def judge(batch: Batch, played: dict) -> Loss:
        fake = shown(batch, played)
        real_loss = adversarial.real(score(batch, batch.target))
        fake_loss = adversarial.fake(score(batch, fake))
        loss = weight * (real_loss + fake_loss)
        parts = {"d_real": real_loss, "d_fake": fake_loss}
        if recipe.loss.gan == "wgangp":
            mix = ops.reshape(batch.draws[:, 0], (-1, 1, 1, 1))
            penalty = losses.gradient_penalty(system.gradient, lambda x: score(batch, x), batch.target, fake, mix)
            loss = loss + recipe.loss.gradient_penalty * penalty
            parts["d_penalty"] = penalty
        return loss, parts

    def translate(batch: Batch, played: dict) -> Loss:
        fool = adversarial.fool(score(batch, played["fake"]))
        l1 = losses.l1(played["fake"], batch.target)
        return recipe.loss.gan_weight * fool + recipe.loss.l1 * l1, {"g_gan": fool, "g_l1": l1}

    G_moves = Move("generator", translate)
    moves = {
        "together": ((Move("discriminator", judge), G_moves),),
        # D judges what was played before G moved, so this order is both at once.
        "simultaneous": ((G_moves, Move("discriminator", judge)),),
        "separate": ((Move("discriminator", judge_real), Move("discriminator", judge_fake), G_moves),),
        "alternate": (
            (Move("discriminator", judge_real), G_moves),
            (Move("discriminator", judge_fake), G_moves),
        ),
    }[recipe.updates]
    system = System(
        networks={"generator": G, "discriminator": D},
        players={"generator": ("generator",), "discriminator": ("discriminator",)},
        translators={"source_to_target": "generator"},
        generate=generate,
        moves=moves,
        pools={"fakes": pool} if pool else {},
        draws=3,
    )
    return system
