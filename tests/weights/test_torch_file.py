"""PyTorch's files must be read as torch reads them, without running what a malicious one asks for."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights.torch_file import MAGIC, read_tensors

torch = pytest.importorskip("torch")


class Pickled:
    """Pickles as the call, and the state, that it is given."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


class Storage:
    """Stands for the numbers under `key`."""

    def __init__(self, key, count):
        self.pid = ("storage", torch.FloatStorage, key, "cpu", count, None)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None


def old_file(path, value, numbers):
    """Writes one pickle after another, as torch did before 1.6, and then the storages."""
    with path.open("wb") as file:
        for part in (MAGIC, 1001, {"little_endian": True}):
            pickle.dump(part, file, 2)
        Pickler(file, 2).dump(value)
        pickle.dump(list(numbers), file, 2)
        for array in numbers.values():
            file.write(struct.pack("<q", array.size) + array.astype("<f4").tobytes())
    return path


def zip_file(path, value, numbers):
    """Writes the layout since 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        pickled = io.BytesIO()
        Pickler(pickled, 2).dump(value)
        archive.writestr("weights/data.pkl", pickled.getvalue())
        for key, array in numbers.items():
            archive.writestr(f"weights/data/{key}", array.astype("<f4").tobytes())
    return path


def tensor(key, shape, start=0, stride=None, count=6):
    stride = stride or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    rebuild = torch._utils._rebuild_tensor
    return Pickled(rebuild, (Storage(key, count), start, shape, stride))


@pytest.mark.parametrize("layout", ["zip", "old"])
def test_tensors_equal_those_that_torch_reads(tmp_path, layout):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, (5, 2)), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {**network.state_dict(), "scalar": torch.tensor(0.5), "rows": whole[1:3], "whole": whole}
    path = tmp_path / "weights.pth"
    torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=layout == "zip")
    read = read_tensors(path)
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value.numpy())


@pytest.mark.parametrize("opcode", [pickle.REDUCE, pickle.NEWOBJ])
def test_parameters_of_the_first_versions_are_read(tmp_path, opcode):
    """Forms that torch itself still reads; torchvision's VGG-16 was saved at that time."""
    numbers, cls = np.arange(6.0), torch.nn.parameter.Parameter
    full = Pickled(cls, (tensor("k", (2, 3)),), (True, False, OrderedDict()))
    empty = Pickled(cls, (), (tensor("k", (3,), 3), None, OrderedDict(), True, False))
    path = old_file(tmp_path / "weights.pth", OrderedDict(full=full, empty=empty), {"k": numbers})
    reduction = pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.BINPUT
    assert reduction in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(reduction, pickle.EMPTY_TUPLE + opcode + pickle.BINPUT))
    read, theirs = read_tensors(path), torch.load(path, weights_only=True)
    np.testing.assert_array_equal(read["full"], numbers.reshape(2, 3))
    np.testing.assert_array_equal(read["empty"], numbers[3:])
    for name in read:
        np.testing.assert_array_equal(read[name], theirs[name].detach().numpy())


@pytest.mark.parametrize("write", [old_file, zip_file])
@pytest.mark.parametrize("call", [os.system, eval, torch.load])
def test_a_call_of_anything_else_is_refused(tmp_path, write, call):
    trace = tmp_path / "trace"
    path = write(tmp_path / "weights.pth", {"w": Pickled(call, (f"touch {trace}",))}, {})
    with pytest.raises(UserError, match="which no weights need"):
        read_tensors(path)
    assert not trace.exists()


def test_a_malicious_first_value_is_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Pickled(os.system, (f"touch {tmp_path / 'trace'}",)), 2))
    with pytest.raises(UserError, match="which no weights need"):
        read_tensors(tmp_path / "weights.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "value",
    [
        tensor("k", (7,)),
        tensor("k", (2, 2), start=4),
        tensor("k", (-2, -3)),
        tensor("other", (6,)),
        tensor("k", (2, 3), stride=(1, 2)),
        {"nested": 1},
        3.0,
    ],
)
def test_what_is_no_tensor_of_the_file_is_refused(tmp_path, value):
    path = zip_file(tmp_path / "weights.pth", {"w": value}, {"k": np.arange(6.0)})
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_tensors(path)


@pytest.mark.parametrize("kind", [torch.float16, torch.int64])
def test_other_kinds_of_numbers_are_refused(tmp_path, kind):
    torch.save({"w": torch.zeros(3, dtype=kind)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="asks for torch.(Half|Long)Storage"):
        read_tensors(tmp_path / "weights.pth")


@pytest.mark.parametrize("layout", ["zip", "old"])
@pytest.mark.parametrize("length", [0, 50, -60])
def test_a_damaged_file_is_refused(tmp_path, layout, length):
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(100)}, path, _use_new_zipfile_serialization=layout == "zip")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="weights.pth is missing"):
        read_tensors(tmp_path / "weights.pth")
