"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): translation both ways, without pairs."""

from __future__ import annotations

from functools import partial

from keras import ops

from repix.config.models import Recipe
from repix.models import losses
from repix.models.discriminators import build_discriminator
from repix.models.generators import build_generator
from repix.systems.system import Batch, Loss, Move, Pool, System

NEEDS_PAIRS = False


def build(recipe: Recipe, size: tuple[int, int], source: int, target: int) -> System:
    """Build CycleGAN: two generators (one player), two discriminators (the other).

    The generators minimise fool both ways + cycle L1 both ways (equations 1-3) + identity
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

    def generate(batch: Batch) -> dict:
        fake_y, fake_x = G(batch.source, training=True), F(batch.target, training=True)
        played = {
            "fake_x": fake_x,
            "fake_y": fake_y,
            "cycled_x": F(fake_y, training=True),
            "cycled_y": G(fake_x, training=True),
        }
        if identity:
            played["same_x"] = F(batch.source, training=True)
            played["same_y"] = G(batch.target, training=True)
        return played

    def translate(batch: Batch, played: dict) -> Loss:
        fool_y = adversarial.fool(D_Y(played["fake_y"], training=True))
        fool_x = adversarial.fool(D_X(played["fake_x"], training=True))
        cycle_x = losses.l1(played["cycled_x"], batch.source)
        cycle_y = losses.l1(played["cycled_y"], batch.target)
        parts = {"g_gan_y": fool_y, "g_gan_x": fool_x, "g_cycle_x": cycle_x, "g_cycle_y": cycle_y}
        loss = recipe.loss.gan_weight * (fool_x + fool_y) + recipe.loss.cycle * (cycle_x + cycle_y)
        if identity:
            parts["g_identity_x"] = losses.l1(played["same_x"], batch.source)
            parts["g_identity_y"] = losses.l1(played["same_y"], batch.target)
            loss = loss + identity * (parts["g_identity_x"] + parts["g_identity_y"])
        return loss, parts

    def real(batch: Batch, played: dict) -> Loss:
        real_x = adversarial.real(D_X(batch.source, training=True))
        real_y = adversarial.real(D_Y(batch.target, training=True))
        return weight * (real_x + real_y), {"d_real_x": real_x, "d_real_y": real_y}

    def fakes(batch: Batch, played: dict):
        if not pools:
            return played["fake_x"], played["fake_y"]
        return (
            pools["source_fakes"].show(played["fake_x"], batch.draws[:, 0:2]),
            pools["target_fakes"].show(played["fake_y"], batch.draws[:, 2:4]),
        )

    def fake(batch: Batch, played: dict) -> Loss:
        shown_x, shown_y = fakes(batch, played)
        fake_x = adversarial.fake(D_X(shown_x, training=True))
        fake_y = adversarial.fake(D_Y(shown_y, training=True))
        loss = weight * (fake_x + fake_y)
        parts = {"d_fake_x": fake_x, "d_fake_y": fake_y}
        if recipe.loss.gan == "wgangp":
            mix = ops.reshape(batch.draws[:, 4], (-1, 1, 1, 1))
            for name, D, own, other in (("x", D_X, batch.source, shown_x), ("y", D_Y, batch.target, shown_y)):
                judged = partial(D, training=True)
                parts[f"d_penalty_{name}"] = losses.gradient_penalty(system.gradient, judged, own, other, mix)
                loss = loss + recipe.loss.gradient_penalty * parts[f"d_penalty_{name}"]
        return loss, parts

    def both(batch: Batch, played: dict) -> Loss:
        real_loss, real_parts = real(batch, played)
        fake_loss, fake_parts = fake(batch, played)
        return real_loss + fake_loss, real_parts | fake_parts

    G_moves = Move("generator", translate)
    moves = {
        "together": ((G_moves, Move("discriminator", both)),),
        "simultaneous": ((G_moves, Move("discriminator", both)),),
        "separate": ((Move("discriminator", real), Move("discriminator", fake), G_moves),),
        "alternate": ((G_moves, Move("discriminator", real)), (G_moves, Move("discriminator", fake))),
    }[recipe.updates]
    system = System(
        networks={"generator": G, "inverse_generator": F, "source_discriminator": D_X, "target_discriminator": D_Y},
        players={
            "generator": ("generator", "inverse_generator"),
            "discriminator": ("source_discriminator", "target_discriminator"),
        },
        translators={"source_to_target": "generator", "target_to_source": "inverse_generator"},
        generate=generate,
        moves=moves,
        pools=pools,
        draws=5,
    )
    return system
