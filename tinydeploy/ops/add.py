"""ADD: add two tensors element by element."""

from tinydeploy.ops import _addsub
from tinydeploy.ops._families import kernels
from tinydeploy.ops.base import portable

OP = _addsub.make(
    "ADD", "sum of two tensors, broadcasting", "AddOptions", 1, kernels("ADD", portable("add"))
)
