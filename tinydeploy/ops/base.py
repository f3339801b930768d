"""Describe an operator once: what it accepts, what it computes, and which C computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, Literal, Protocol, TypeVar

from numpy.typing import NDArray

from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.layout import PLAIN, Layout

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Pair a node with its graph, so that operators read tensors instead of indices."""

    graph: Graph
    node: Node

    @property
    def inputs(self) -> list[Tensor | None]:
        return [None if i is None else self.graph.tensors[i] for i in self.node.inputs]

    @property
    def outputs(self) -> list[Tensor]:
        return [self.graph.tensors[i] for i in self.node.outputs]

    def input(self, position: int = 0) -> Tensor:
        return self.graph.tensor(self.node.inputs[position])

    def has_input(self, position: int) -> bool:
        return len(self.node.inputs) > position and self.node.inputs[position] is not None

    @property
    def output(self) -> Tensor:
        return self.graph.tensors[self.node.outputs[0]]

    @property
    def attributes(self) -> Any:
        return self.node.attributes


@dataclass(frozen=True, slots=True)
class RowSource:
    """Say which rows of one input an output row y needs.

    They are y * stride + offset + k * dilation for k = 0 .. taps - 1; a row outside the tensor is
    padding. With `table`, output row y needs row table[y] alone. `input` is the position among
    the node's inputs.
    """

    input: int = 0
    taps: int = 1
    stride: int = 1
    offset: int = 0
    dilation: int = 1
    table: tuple[int, ...] | None = None

    def rows(self, y: int) -> list[int]:
        """Rows of the input that output row y needs; may lie outside the tensor."""
        if self.table is not None:
            return [self.table[y]]
        first = y * self.stride + self.offset
        return [first + k * self.dilation for k in range(self.taps)]


@dataclass(frozen=True, slots=True)
class Inside:
    """Say that tensor `inner` is the bytes of tensor `outer` from `start` on.

    With a `pitch` it is some columns of an image: its rows are that many bytes apart.
    """

    inner: int
    outer: int
    start: int
    pitch: int = 0


# How a node is streamed; a number is of rows that lie together and are computed as one. What is
# "stored" is the weights, as where the goal is speed: wider, in flash.
Pace = Literal["tight", "even", "wide", "stored"] | int


class Params(Protocol):
    """Mark the frozen dataclass that a C kernel reads: ints and integer arrays, in C's order."""


@dataclass(frozen=True, slots=True)
class Site:
    """Describe where a kernel would be used: the node, the core, the goal, the layouts so far.

    `isa` and `features` are the target's ("" and nothing for portable C); `optimize` is "speed",
    "balanced" or "size"; `layouts` gives the layout of tensors that are not plain. What is streamed
    has a pace: "tight" kernels go for little RAM, "wide" ones compute several rows per call for few
    instructions.
    """

    call: Call
    profile: IntegerProfile
    isa: str = ""
    features: frozenset[str] = frozenset()
    optimize: str = "balanced"
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    pace: Pace = "even"

    def input_layout(self, position: int = 0) -> Layout:
        index = self.call.node.inputs[position]
        return PLAIN if index is None else self.layouts.get(index, PLAIN)

    @property
    def output_layout(self) -> Layout:
        return self.layouts.get(self.call.node.outputs[0], PLAIN)


Found = TypeVar("Found")


def once_per_site(function: Callable[[Site], Found]) -> Callable[[Site], Found]:
    """Remember what a function found out about a site.

    Kernels are asked often while memory is planned, and look at all weights for their answers.
    """

    @lru_cache(maxsize=2048)
    def found(
        graph: Graph,
        node: Node,
        profile: IntegerProfile,
        core: tuple[str, frozenset[str], str, Pace],
        around: tuple[tuple[int, Layout], ...],
    ) -> Found:
        isa, features, optimize, pace = core
        call = Call(graph, node)
        return function(Site(call, profile, isa, features, optimize, dict(around), pace))

    @wraps(function)
    def remembered(site: Site) -> Found:
        node, layouts = site.call.node, site.layouts
        own = {
            i: layouts[i] for i in (*node.inputs, *node.outputs) if i is not None and i in layouts
        }
        core = site.isa, site.features, site.optimize, site.pace
        return found(site.call.graph, node, site.profile, core, tuple(own.items()))

    return remembered


def always(site: Site) -> bool:
    """Accept every node; the portable C kernel of an operator ends its list with this."""
    return True


@dataclass(frozen=True, slots=True)
class Kernel:
    """Name a C kernel and say how it is called.

    templates/ops/<template>.c.j2 defines <function> and <function>_params.

    accepts: whether the kernel can compute this node on this core.
    params: what the C struct holds, in its order; the operator's own `params` when None.
    constants: values the template is rendered with; each distinct set is a function of its own,
        named <function>_<value>_<value>...
    scratch: bytes of arena, 4-byte aligned, that the kernel gets as its fourth argument.
    band: rows of output per call; the last call may get NULL for rows that do not exist.
    whole: the tensors are given whole, as one row, even where the operator works by rows.
    pad_row: rows outside the image are pointers to a row of zero points, not NULL.
    wants: the layout the kernel needs for an input; it is used only where this is granted.
    planar_output: the kernel can write planar rows.
    by_rows: the kernel touches only the rows it is given, so that it may be streamed.
    accumulators: bytes that a kernel of Op.reductions keeps from call to call: it is called once
        per row of its input, with that row's number as a fifth argument, and writes after the last.
    """

    template: str
    function: str
    accepts: Callable[[Site], bool] = always
    params: Callable[[Site], Any] | None = None
    constants: Callable[[Site], dict[str, int]] = lambda site: {}
    scratch: Callable[[Site], int] = lambda site: 0
    band: int = 1
    whole: Callable[[Site], bool] = lambda site: False
    pad_row: bool = False
    wants: Callable[[Site, int], Layout] = lambda site, position: PLAIN
    planar_output: bool = False
    by_rows: bool = False
    accumulators: Callable[[Site], int] | None = None


Check = Callable[[Call], str | None]


def no_parameters(call: Call, profile: IntegerProfile) -> Any:
    return None


def no_macs(call: Call) -> int:
    return 0


def whole_tensor(call: Call) -> None:
    """Say that the operator needs its whole input at once."""
    return


def moves_bytes(call: Call) -> tuple[Inside, ...]:
    """Say that the operator has work to do wherever its tensors lie."""
    return ()


def same_attributes(call: Call, left: int, right: int) -> Any:
    return call.attributes


def never_in_place(call: Call, position: int) -> bool:
    return False


Stored = tuple[dict[str, Any], list[Array]]

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")  # by their codes in TFLite's schema


def fused_activation(call: Call) -> Stored:
    """Store the fused activation, if there is one, and nothing else."""
    name = getattr(call.attributes, "activation", None)
    return ({} if name is None else {"FusedActivationFunction": ACTIVATIONS.index(name)}), []


@dataclass(frozen=True, slots=True)
class Op:
    """Hold everything the project knows about one operator.

    parse: attributes from a TFLite operator (an importers.tflite.OperatorReader).
    checks: each docstring is the sentence the user reads; returns the offending figures or None.
    stored: the inverse of parse: the options of the schema's table by name, and the constants that
        follow the computed inputs.
    shape: the output shapes.
    reference: integer arrays to integer arrays; THE semantics.
    float_reference: float32 arrays to float32 arrays, what a float model means; None where float
        networks cannot have the operator.
    fixed_output: the quantisation that the output must have, by its element type.
    params: what the C kernel reads.
    region: rows of the inputs that a row of the output needs; None when not streamable.
    rows: how many rows the output has, a row being what one kernel call writes.
    in_place: whether the output may lie exactly over an input of the same row pitch.
    macs: multiply-accumulates of one inference.
    kernels: best first; the last one is portable C and accepts everything.
    reductions: kernels that take the input row by row where the output needs all of it, best first.
    inputs: positions of the inputs that the kernel reads as activations.
    columns: columns of the inputs that a column of the output needs, as `region` says of rows; None
        when the operator cannot work on some of the columns alone.
    narrow: the attributes for some of the columns: padding left and right is what is given.
    inside: which tensor is part of which other one, if the operator needs no work once they lie
        so in memory; empty when it must move bytes.
    view: the output is the input under another shape, always.
    pointwise: an output element depends on the input elements at its place alone, in the same way
        everywhere but for constants.
    """

    name: str
    summary: str
    parse: Callable[[Any], Any]
    shape: Callable[[Call], list[tuple[int, ...]]]
    reference: Callable[[Call, list[Array], IntegerProfile], list[Array]]
    kernels: tuple[Kernel, ...]
    checks: tuple[Check, ...] = ()
    params: Callable[[Call, IntegerProfile], Any] = no_parameters
    region: Callable[[Call], tuple[RowSource, ...] | None] = whole_tensor
    rows: Callable[[Call], int] = lambda call: call.output.rows
    in_place: Callable[[Call, int], bool] = never_in_place
    macs: Callable[[Call], int] = no_macs
    reductions: tuple[Kernel, ...] = ()
    inputs: Callable[[Call], tuple[int, ...]] = lambda call: (0,)
    inside: Callable[[Call], tuple[Inside, ...]] = moves_bytes
    columns: Callable[[Call], tuple[RowSource, ...] | None] = whole_tensor
    narrow: Callable[[Call, int, int], Any] = same_attributes
    view: bool = False
    pointwise: bool = False
    float_reference: Callable[[Call, list[Array]], list[Array]] | None = None
    stored: Callable[[Call], Stored] = fused_activation
    fixed_output: Mapping[DType, Quantization] = field(default_factory=dict)


def alike_on_floats(
    reference: Callable[[Call, list[Array], Any], list[Array]],
) -> Callable[[Call, list[Array]], list[Array]]:
    """Return the float reference of an operator that only moves values."""
    return lambda call, values: reference(call, values, None)


def element_bits(site: Site) -> dict[str, int]:
    """Return the constant of templates that are written for int8 and int16: nothing for int8."""
    return {"bits": 16} if site.call.output.dtype is DType.INT16 else {}


def on_int16(site: Site) -> bool:
    """Accept nodes that write int16."""
    return site.call.output.dtype is DType.INT16


def portable(template: str) -> tuple[Kernel, ...]:
    """Return the kernel list of an operator that has only its portable C kernel.

    The template defines {{ function }} for elements of `bits` bits, of 8 where that is undefined.
    """
    return (Kernel(template, f"td_{template}", constants=element_bits, by_rows=True),)


def portable_bytes(template: str) -> tuple[Kernel, ...]:
    """Return the kernel list of an operator whose kernel counts in bytes, whatever the elements."""
    return (Kernel(template, f"td_{template}", by_rows=True),)
