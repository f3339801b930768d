"""SUB: subtract two tensors element by element."""

from tinydeploy.ops import _addsub
from tinydeploy.ops._families import kernels
from tinydeploy.ops.base import portable

OP = _addsub.make(
    "SUB",
    "difference of two tensors, broadcasting",
    "SubOptions",
    -1,
    kernels("ADD", portable("add")),
)
