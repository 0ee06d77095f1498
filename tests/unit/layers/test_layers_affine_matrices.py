import numpy as np
import tensorflow as tf

from keras_opt.layers.affine_matrices import about_centres, compose, inverses, moved, rotations, scales, shears, shifts

ONE = tf.ones([1])


def shown(matrices, x, y):
    """The input point that output point (x, y) shows."""
    return moved(tf.constant([[[float(x), y]]]), matrices).numpy()[0, 0]


def test_a_rotation_turns_the_image_counter_clockwise():
    np.testing.assert_allclose(shown(rotations(90 * ONE), 1, 0), [0, 1], atol=1e-6)  # below comes to the right


def test_a_shift_moves_the_image_right_and_down():
    np.testing.assert_allclose(shown(shifts(2 * ONE, 3 * ONE), 5, 5), [3, 2])


def test_a_shear_keeps_horizontals_and_turns_verticals_counter_clockwise():
    np.testing.assert_allclose(shown(shears(30 * ONE), 1, 0), [1, 0])
    np.testing.assert_allclose(shown(shears(30 * ONE), 0, 1), [-0.5, 3**0.5 / 2], rtol=1e-6)  # from the left of below


def test_a_scale_is_the_share_of_the_view():
    np.testing.assert_allclose(shown(scales(2 * ONE, -1 * ONE), 3, 4), [6, -4])


def test_compose_is_the_matrix_product():
    first, second = rotations(20 * ONE), compose(shifts(3 * ONE, 4 * ONE), shears(10 * ONE))
    np.testing.assert_allclose(compose(first, second), first.numpy() @ second.numpy(), rtol=1e-6)


def test_the_origin_is_the_centre_of_the_image():
    flip = about_centres(scales(-1 * ONE, ONE), (4, 6), (4, 6))
    np.testing.assert_allclose(shown(flip, 0, 3), [5, 3])


def test_a_result_of_another_size_shows_the_whole_image():
    half = about_centres(scales(ONE, ONE), (4, 6), (2, 3))
    np.testing.assert_allclose(shown(half, 0, 0), [0.5, 0.5])
    np.testing.assert_allclose(shown(half, 2, 1), [4.5, 2.5])


def test_inverses_undo():
    matrices = about_centres(compose(rotations(20 * ONE), shears(10 * ONE), shifts(3 * ONE, 4 * ONE)), (9, 7), (5, 6))
    np.testing.assert_allclose(compose(inverses(matrices), matrices)[0], np.eye(3), atol=1e-5)
