"""The table of ops is tested whole."""

from export.mil.ops.table import KERNELS
from tests.export.mil import test_mil_ops_elementwise as elementwise
from tests.export.mil import test_mil_ops_linear as linear
from tests.export.mil import test_mil_ops_reduce as reduce
from tests.export.mil import test_mil_ops_shape as shape

# Tested with saved packages.
STATES = {"coreml_update_state", "read_state"}


def test_every_op_has_a_case_of_its_own():
    tested = {case[0] for module in (elementwise, linear, reduce, shape) for case in module.CASES}
    assert KERNELS.keys() - STATES == tested
