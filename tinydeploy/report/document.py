"""Hold the result of a deployment as one document; its JSON form is a public interface."""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse positional construction: parts are named as in the JSON."""


class Model(_Part, frozen=True, kw_only=True):
    """Identify the model."""

    name: str
    sha256: str
    macs: int


class MemoryUse(_Part, frozen=True, kw_only=True):
    """Say what one memory of the target holds, in bytes.

    cost: cycles per 32-bit access, beside those of the fastest memory; arena: the plan's part;
    used: all of it, known after a build, inputs in flash not counted.
    """

    name: str
    kind: str
    size: int
    cost: float
    arena_bytes: int
    used_bytes: int | None = None
    fits: bool


class PlaceFigures(_Part, frozen=True, kw_only=True):
    """Say in which memory a buffer of the arena lies, and at which byte of its arena there."""

    name: str
    memory: str
    offset: int
    bytes: int


class MemoryFigures(_Part, frozen=True, kw_only=True):
    """Count bytes.

    arena: activations, inputs, outputs and scratch; ram: arena, stack reserve and variables;
    flash: all code and constants; code: machine code of the whole firmware; const: the model's
    weights and tables; model_code: machine code of the model alone; code_in_ram: of that,
    what was moved to fast memory; stack: deepest use measured; input: inputs that lie in flash or
    wherever the caller has them, in no other figure.
    """

    arena_bytes: int
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    code_bytes: int | None = None
    const_bytes: int | None = None
    model_code_bytes: int | None = None
    code_in_ram_bytes: int | None = None
    stack_bytes: int | None = None
    input_bytes: int | None = None
    fits: bool | None = None
    memories: list[MemoryUse] = []
    lower_bound_bytes: int
    optimal: bool


class RingFigures(_Part, frozen=True, kw_only=True):
    """Say how many of a tensor's rows are held at most at a time, in how many bytes."""

    tensor: str
    rows_held: int
    rows: int
    bytes: int


class SegmentFigures(_Part, frozen=True, kw_only=True):
    """Describe a segment of the plan: its nodes and what the arena holds while it runs.

    kind: "layer" (one node, whole) or "streamed" (row by row, in `steps` calls). alive_bytes: in
    use at most at one of them; scratch_bytes: kernels' own memory, likewise.
    """

    kind: str
    nodes: list[int]
    ops: list[str]
    steps: int
    alive_bytes: int
    scratch_bytes: int
    rings: list[RingFigures]


class FrontFigures(_Part, frozen=True, kw_only=True):
    """Describe a plan that no other beats in RAM and (estimated) instructions.

    const_bytes: estimated, of weights and tables in flash.
    """

    arena_bytes: int
    instructions: int
    const_bytes: int
    chosen: bool
    mac_factor: float = 1.0


class PlanFigures(_Part, frozen=True, kw_only=True):
    """Describe the plan: where the input comes from and how much work is repeated."""

    input: str
    mac_factor: float
    allocator: str
    segments: list[SegmentFigures]
    places: list[PlaceFigures] = []
    front: list[FrontFigures]


class PeakBuffer(_Part, frozen=True, kw_only=True):
    """Describe what is alive at the peak.

    bytes: in use at that call, all of them together are the explanation's alive_bytes; whole_bytes:
    of the buffer, or of as many rows as are held at most at a time. A "ring" is the rows of a
    tensor that are still needed: `rows_held` of its `rows` at that call; its readers, and the
    nodes whose windows they wait for.
    """

    name: str
    kind: str
    shape: list[int]
    bytes: int
    whole_bytes: int
    rows_held: int
    rows: int
    readers: list[int]
    waits_for: list[int]


class VariantFigures(_Part, frozen=True, kw_only=True):
    """Give the arena of the network with one change; `searched`: its segments, too, are new."""

    node: int
    op: str
    change: str
    before: str
    after: str
    arena_bytes: int
    searched: bool


class ExplainFigures(_Part, frozen=True, kw_only=True):
    """Say what makes the peak and what would lower it; `untried` changes took too long."""

    nodes: list[int]
    kind: str
    alive_bytes: int
    next_alive_bytes: int
    buffers: list[PeakBuffer]
    variants: list[VariantFigures]
    untried: int


class PieceFigures(_Part, frozen=True, kw_only=True):
    """Say how a schedule runs the nodes `first` to `last` together: "6 x 6 patches"."""

    first: int
    last: int
    how: str


class ScheduleFigures(_Part, frozen=True, kw_only=True):
    """Describe what a memory schedule takes: bytes at the peak, inputs counted and not.

    None where the schedule was not made so. `pieces` are runs of nodes; others run by themselves.
    """

    method: str
    known_as: str
    arena_bytes: int | None
    without_input_bytes: int | None
    mac_factor: float
    pieces: list[PieceFigures] = []


class CompareFigures(_Part, frozen=True, kw_only=True):
    """Hold published schedules of the network beside its plan.

    mac_factor: what the methods were allowed; input_counted: whether they were chosen for the
    bytes with inputs or without.
    """

    mac_factor: float
    input_counted: bool
    plan: ScheduleFigures
    published: list[ScheduleFigures]


class MismatchFigures(_Part, frozen=True, kw_only=True):
    """Name the first differing value."""

    sample: int
    node: int | None
    op: str
    name: str
    tensor: str
    index: list[int]
    got: float
    expected: float


class VerifyFigures(_Part, frozen=True, kw_only=True):
    """Say what was compared with which oracle."""

    bit_exact: bool
    samples: int
    values: int
    differing: int
    max_abs_diff: float
    oracle: str
    inputs: str
    first_mismatch: MismatchFigures | None = None


class NodeCount(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Count one node, in the profile's unit: the median of all runs; milliseconds on boards."""

    name: str
    op: str
    macs: int
    count: int
    least: int | None = None
    most: int | None = None
    milliseconds: float | None = None


class ProfileRun(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Count one inference; unit is instructions (emulator), cycles (board) or nanoseconds.

    least, most: of whole inferences, over `runs` of them; id: the profile's number in the history.
    """

    unit: str
    total: int
    nodes: list[NodeCount]
    port: str | None = None
    runs: int | None = None
    least: int | None = None
    most: int | None = None
    milliseconds: float | None = None
    id: int | None = None


class Accuracy(_Part, frozen=True, kw_only=True):
    """Give accuracy over labelled samples, from 0 to 1; metric is top1 or auc.

    auc is the area under the ROC curve. floats: of the float network, where it is known.
    """

    metric: str
    samples: int
    device: float
    reference: float
    floats: float | None = None


class Stage(_Part, frozen=True, kw_only=True):
    """Time one stage."""

    name: str
    seconds: float


class Document(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Hold all figures of one command."""

    model: Model
    target: str | None = None
    profile: str
    memory: MemoryFigures
    plan: PlanFigures
    explain: ExplainFigures | None = None
    compare: CompareFigures | None = None
    verify: VerifyFigures | None = None
    profile_run: ProfileRun | None = None
    accuracy: Accuracy | None = None
    warnings: list[str] = []
    stages: list[Stage]


def to_json(document: object) -> str:
    """Return a document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
