"""Pickled arrays are read as they are, and nothing else that a pickle asks for is built."""

import os
import pickle

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights.restricted_pickle import read_arrays


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4])
def test_nested_arrays_are_read(tmp_path, protocol):
    tree = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "names": ("x", 1, 2.5, None, True)}
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(tree, protocol))
    read = read_arrays(path)
    assert read["names"] == tree["names"]
    np.testing.assert_array_equal(read["a"]["kernel"], tree["a"]["kernel"])


def test_arrays_of_numpy_1_are_read(tmp_path):
    pickled = pickle.dumps(np.arange(3), 3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"cnumpy.core.multiarray\n" in pickled
    (tmp_path / "weights").write_bytes(pickled)
    np.testing.assert_array_equal(read_arrays(tmp_path / "weights"), np.arange(3))


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_kinds_of_numbers_and_orders_of_axes_are_read(tmp_path, dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype, order=order)
    (tmp_path / "weights").write_bytes(pickle.dumps(array, 4))
    read = read_arrays(tmp_path / "weights")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("array", [np.array([object]), np.array(["text"]), np.zeros(2, [("x", "f4")])])
def test_an_array_of_anything_but_numbers_is_refused(tmp_path, array):
    (tmp_path / "weights").write_bytes(pickle.dumps(array, 4))
    with pytest.raises(UserError, match="not of numbers"):
        read_arrays(tmp_path / "weights")


@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.fromfile])
def test_a_call_of_anything_else_is_refused(tmp_path, function):
    path, trace = tmp_path / "weights", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"kernel": Call(function, f"touch {trace}")}))
    with pytest.raises(UserError, match="which no weights need"):
        read_arrays(path)
    assert not trace.exists()


def test_an_attribute_of_an_allowed_object_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(UserError, match="numpy.ndarray.tofile"):
        read_arrays(tmp_path / "weights")


@pytest.mark.parametrize("content", [b"", b"weights", pickle.dumps(np.arange(99))[:-40]])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_arrays(tmp_path / "weights")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="weights is missing"):
        read_arrays(tmp_path / "weights")
