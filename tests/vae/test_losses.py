"""The terms of the VAE's loss, and the objective that weighs them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.config import VaeConfig, VaeLossConfig
from mobile_video_jax.vae.losses.discriminator import PatchDiscriminator
from mobile_video_jax.vae.losses.objective import VaeObjective
from mobile_video_jax.vae.losses.terms import (
    consistency_mse,
    down_sample,
    equivariance,
    latent_consistency,
    random_turn,
    reconstruction_terms,
    scale_equivariance,
)
from mobile_video_jax.vae.losses.vgg import Vgg
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.posterior import Posterior
from tests.nets import normal, params_like, run

# One step, in time and space: what is tested here does not need more, and it compiles sooner.
VAE = Vae(VaeConfig("t2_s4_c4", (8, 12), (1, 1), (8, 12), (1, 1), head_dim=6))
NOTHING = VaeLossConfig(l1=0.0, l2=0.0, kl=0.0)


def objective(weights: VaeLossConfig, vae: Vae = VAE, image_probability: float = 0.5) -> VaeObjective:
    return VaeObjective(vae, weights, image_probability, (2,), Vgg(1), PatchDiscriminator((4, 8)))


@pytest.fixture(scope="module")
def video() -> jax.Array:
    return jnp.tanh(normal(3, 2, 3, 16, 16, 3))


@pytest.fixture(scope="module")
def params(video) -> dict:
    return params_like(VAE, video, scale=0.1)


def test_reconstruction_terms_by_hand():
    video = jnp.zeros((1, 1, 2, 2, 3))
    posterior = Posterior(jnp.ones((1, 1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1, 1)))
    terms = reconstruction_terms(video, video + 0.5, posterior)
    assert {name: float(value) for name, value in terms.items()} == {"l1": 0.5, "l2": 0.25, "kl": 0.5}


def test_divergence_of_two_posteriors_equals_its_definition_by_sampling():
    one, other = (Posterior(*(jnp.full((1,) * 5, x) for x in pair)) for pair in ((0.7, np.log(0.25)), (0.2, 0.3)))
    samples = np.asarray(jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 200_000))).ravel()
    log_density = lambda m, log_s2: -0.5 * ((samples - m) ** 2 / np.exp(log_s2) + log_s2)
    expected = (log_density(0.7, np.log(0.25)) - log_density(0.2, 0.3)).mean()
    np.testing.assert_allclose(one.kl_to(other), expected, rtol=0.02)
    normal = Posterior(jnp.zeros((1,) * 5), jnp.zeros((1,) * 5))
    np.testing.assert_allclose(one.kl_to(normal), one.kl_to_normal(), rtol=1e-6)


def test_latent_consistency_is_zero_for_a_perfect_decoder_and_only_then(params, video):
    consistency = jax.jit(latent_consistency)
    posterior, other = (run(VAE, params, clip, method="encode") for clip in (video, 0.9 * video))
    assert float(consistency(posterior, posterior)) == pytest.approx(0.0, abs=1e-6)
    assert float(consistency(other, posterior)) > 1e-3


def test_latent_consistency_moves_the_decoded_clips_posterior_alone():
    one, other = (Posterior(jnp.full((1,) * 5, m), jnp.zeros((1,) * 5)) for m in (0.7, 0.2))
    towards, away = jax.grad(latent_consistency, argnums=(0, 1))(one, other)
    assert float(towards.mean.sum()) == pytest.approx(0.5)
    assert all(float(jnp.abs(leaf).sum()) == 0 for leaf in jax.tree.leaves(away))


def test_the_distance_of_latents_does_not_depend_on_their_scale():
    one, other = (Posterior(normal(seed, 2, 1, 4, 4, 3), jnp.zeros((2, 1, 4, 4, 3))) for seed in (0, 1))
    scaled = [Posterior(jnp.array([1.0, 10.0, 0.1]) * each.mean, each.log_variance) for each in (one, other)]
    expected = float(np.mean(((one.mean - other.mean) / np.std(other.mean, axis=(0, 1, 2, 3))) ** 2))
    assert float(consistency_mse(one, other)) == pytest.approx(expected, rel=1e-4)
    assert float(consistency_mse(*scaled)) == pytest.approx(expected, rel=1e-4)
    towards, away = jax.grad(lambda *means: consistency_mse(*(Posterior(m, m) for m in means)), (0, 1))(
        one.mean, other.mean
    )
    assert float(jnp.abs(towards).sum()) > 0.1 and float(jnp.abs(away).sum()) == 0


def test_down_sampling_averages_blocks():
    x = jnp.arange(16.0).reshape(1, 1, 4, 4, 1)
    np.testing.assert_array_equal(down_sample(x, 2)[0, 0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])


def test_scale_equivariance_is_zero_for_a_decoder_that_commutes_with_down_sampling():
    latents = normal(0, 1, 2, 8, 8, 3)
    linear, curved = (lambda z: 2 * z + 1), (lambda z: z**2)  # place by place, so at stride 1
    assert float(scale_equivariance(linear, latents, linear(latents), (2, 4))) < 1e-10
    assert float(scale_equivariance(curved, latents, curved(latents), (2,))) > 1e-2


def test_equivariance_is_zero_for_a_decoder_that_commutes_with_turns():
    latents, key = normal(0, 1, 2, 8, 8, 3), jax.random.key(0)
    linear, curved = (lambda z: 2 * z + 1), (lambda z: z**2)
    falling = lambda z: z * jnp.arange(1.0, z.shape[2] + 1)[:, None, None]  # row by row: it does not turn
    error = lambda decode, scales: float(equivariance(decode, latents, decode(latents), scales, key))
    assert error(linear, (2, 4)) < 1e-10 and error(curved, ()) < 1e-10
    assert error(curved, (2,)) > 1e-2 and error(falling, ()) > 1e-1


def test_frames_are_turned_by_quarters_and_those_not_square_by_halves():
    square, wide = normal(0, 1, 1, 4, 4, 1), normal(0, 1, 1, 2, 4, 1)
    seen = set()
    for seed in range(12):
        turn = random_turn(jax.random.key(seed))
        same = [k for k in range(4) if np.array_equal(turn(square), np.rot90(square, k, (2, 3)))]
        seen |= set(same)
        np.testing.assert_array_equal(turn(wide), np.rot90(wide, 2, (2, 3)))
    assert seen == {1, 2, 3}


def gradient_sizes(weights: VaeLossConfig, params: dict, video: jax.Array) -> dict[str, float]:
    gradient = jax.jit(jax.grad(lambda params: objective(weights)(params, video, jax.random.key(0))[0]))
    norm = lambda tree: float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))
    return {part: norm(tree) for part, tree in gradient(params).items()}


@pytest.mark.parametrize("term", ["scale_equivariance", "eq", "latent_consistency", "consistency_mse"])
def test_equivariance_trains_encoder_and_decoder_and_consistency_the_decoder(params, video, term):
    """Equivariance shapes the latents, so its gradient must reach the encoder."""
    sizes = gradient_sizes(dataclasses.replace(NOTHING, **{term: 1.0}), params, video)
    assert sizes["decoder"] > 1e-4
    assert sizes["encoder"] == 0 if "consistency" in term else sizes["encoder"] > 1e-4


def test_each_side_of_the_adversarial_term_trains_its_own_network(params, video):
    weights = dataclasses.replace(NOTHING, adversarial=1.0)
    discriminator = params_like(PatchDiscriminator((4, 8)), video, scale=0.1)
    together = params | {"discriminator": discriminator}
    # The VAE lowers the discriminator's judgement; the discriminator learns as if the decoded clip were data.
    assert all(size > 1e-5 for size in gradient_sizes(weights, together, video).values())
    loss, terms = jax.jit(objective(weights))(together, video, jax.random.key(0))
    assert float(loss) == pytest.approx(float(terms["adversarial"] + terms["discriminator"]), rel=1e-5)


def test_before_its_start_the_adversarial_term_trains_the_discriminator_alone(params, video):
    weights = dataclasses.replace(VaeLossConfig(), adversarial=1.0)
    together = params | {"discriminator": params_like(PatchDiscriminator((4, 8)), video, scale=0.1)}

    def gradient(weights: VaeLossConfig, adversary: str) -> dict:
        loss = lambda params: objective(weights)(params, video, jax.random.key(0), adversary)[0]
        return jax.jit(jax.grad(loss))(together)

    absent, learns = gradient(weights, "absent"), gradient(weights, "learns")
    plain = gradient(VaeLossConfig(), "counts")
    close = functools.partial(np.testing.assert_allclose, atol=1e-7)
    for part in ("encoder", "decoder"):
        jax.tree.map(close, absent[part], plain[part])
        jax.tree.map(close, learns[part], plain[part])
    size = lambda tree: float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree["discriminator"])))
    assert size(absent) == 0 and size(learns) > 1e-3


def test_the_adaptive_weight_makes_the_adversarial_gradient_a_share_of_reconstructions(params, video):
    weights = VaeLossConfig(l1=0.0, l2=1.0, kl=0.0, adversarial=0.5)
    together = params | {"discriminator": params_like(PatchDiscriminator((4, 8)), video, scale=0.1)}
    decoded = 0.5 * video
    adaptive = dataclasses.replace(objective(weights), adaptive=True)
    of_adversarial = lambda decoded: adaptive._adversarial(together, video, decoded)
    weight = of_adversarial(decoded)[1]
    gradient = jax.grad(lambda decoded: jnp.prod(jnp.stack(of_adversarial(decoded))))(decoded)
    reconstruction = 2 * (decoded - video) / video.size
    norm = jnp.linalg.norm
    assert float(norm(gradient) / norm(reconstruction)) == pytest.approx(0.5, rel=1e-3)
    assert float(weight) != pytest.approx(0.5, rel=0.1)
    loss, terms = jax.jit(adaptive)(together, video, jax.random.key(0))
    expected = terms["l2"] + terms["adversarial_weight"] * terms["adversarial"] + terms["discriminator"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_terms_of_weight_zero_cost_nothing_and_the_others_add_up(params, video):
    cost = lambda weights: sum(count_flops(objective(weights), params, video, jax.random.key(0)).values())
    plain = cost(VaeLossConfig())
    assert plain == sum(count_flops(lambda p, v: apply(VAE, p, v), params, video).values())
    assert cost(VaeLossConfig(latent_consistency=1.0)) > 1.3 * plain
    assert 1.05 * plain < cost(VaeLossConfig(scale_equivariance=1.0)) < 1.3 * plain
    weights = VaeLossConfig(latent_consistency=0.5, scale_equivariance=2.0)
    loss, terms = jax.jit(objective(weights))(params, video, jax.random.key(0))
    expected = sum(getattr(weights, name) * float(value) for name, value in terms.items())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_perceptual_term_falls_as_the_decoded_clip_nears_the_video(params, video):
    vgg = params_like(Vgg(1), video[0])
    perceptual = jax.jit(objective(dataclasses.replace(NOTHING, perceptual=1.0)))
    loss, terms = perceptual(params | {"vgg": vgg}, video, jax.random.key(0))
    assert 0 < float(loss) == pytest.approx(float(terms["perceptual"]))


def test_the_image_is_given_to_the_share_of_clips_asked_for(video):
    omni = Vae(dataclasses.replace(VAE.config, omni=True))
    params = params_like(omni, video, scale=0.1)
    plain = jax.jit(objective(VaeLossConfig()))(params, video, jax.random.key(0))[0]
    never, always = (
        jax.jit(objective(VaeLossConfig(), omni, share))(params, video, jax.random.key(0))[0] for share in (0.0, 1.0)
    )
    assert float(never) == pytest.approx(float(plain), rel=1e-5) and abs(float(always - plain)) > 1e-4
