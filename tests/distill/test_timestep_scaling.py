"""The balance of data and teacher by time."""

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.distill.projectors import matched_maps, projected_errors
from mobile_video_jax.distill.timestep_scaling import RATIOS, balanced, task_share
from tests.nets import normal


def test_the_middle_learns_from_data_and_both_ends_from_the_teacher():
    share = task_share(jnp.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(share, [0, share[1], 1, share[1], 0], atol=1e-3)
    assert 0.5 < share[1] < 1
    losses = balanced(jnp.full(2, 3.0), jnp.full(2, 5.0), jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(losses, [3.0, 3.0])


def test_a_conditioning_frame_does_not_set_the_time_of_its_clip():
    np.testing.assert_allclose(task_share(jnp.array([[0.0, 0.3, 0.3]])), task_share(jnp.array([0.3])))


def test_the_teachers_loss_may_have_any_scale_and_its_ratio_is_a_constant():
    def loss(x, scale):
        return balanced(jnp.full(1, 2.0), scale * x**2, 0.25)[0]

    assert loss(jnp.ones(1), 1.0) == loss(jnp.ones(1), 3.0)
    # d/dx of 0.75 * (2 / 1) x^2 at 1, as if the ratio did not depend on x.
    np.testing.assert_allclose(jax.grad(lambda x: loss(x, 1.0))(jnp.ones(1)), [3.0])
    converged = balanced(jnp.full(1, 2.0), jnp.full(1, 1e-4), 0.0)
    np.testing.assert_allclose(converged, [RATIOS[1] * 1e-4], rtol=1e-5)


def test_maps_of_a_teacher_are_averaged_to_the_students_grid_and_padding_is_left_out():
    teacher = normal(0, 2, 2, 4, 4, 3)
    student = jnp.mean(teacher.reshape(2, 2, 2, 2, 2, 2, 3), axis=(3, 5))
    np.testing.assert_allclose(projected_errors([student, teacher], [teacher, teacher]), 0, atol=1e-6)
    mask = jnp.ones((2, 2, 4, 4), bool).at[0, 1].set(False)
    errors = projected_errors([student.at[:, 1].add(1.0)], [teacher], mask)
    assert errors[0] < 1e-6 < 0.1 < errors[1]
    maps = [jnp.full((1, 1, 1, 1, 1), float(i)) for i in range(6)]
    assert [float(x.item()) for x in matched_maps(2, maps)] == [2, 5]
