"""Name the integer semantics that a deployment must reproduce bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.errors import UsageError


@dataclass(frozen=True, slots=True)
class IntegerProfile:
    """Say how each operator rounds where runtimes differ.

    `single_rounding` holds the operators that requantise with one rounding; all others round
    twice (a doubling high multiply, then a shift), as gemmlowp defined it. Measured against
    ai-edge-litert 2.3.0 with BUILTIN_REF: only FULLY_CONNECTED rounds once. TensorFlow Lite Micro
    rounds everything twice. `float_tables` holds the operators that a runtime tabulates with
    float32 functions when it loads the model; elsewhere they are fixed-point. LiteRT does so for
    LOGISTIC and TANH (activations.cc, PopulateLookupTable), TensorFlow Lite Micro does not.
    `float32_factors` has SOFTMAX where scale and beta of int16 are multiplied in float32, as LiteRT
    does (activations.cc, SoftmaxPrepare), and not in float64 as TensorFlow Lite Micro does
    (softmax_common.cc, CalculateSoftmaxParams).
    """

    name: str
    single_rounding: frozenset[str]
    float_tables: frozenset[str] = frozenset()
    float32_factors: frozenset[str] = frozenset()

    def rounds_once(self, op: str) -> bool:
        return op in self.single_rounding


PROFILES = {
    "litert": IntegerProfile(
        "litert",
        single_rounding=frozenset({"FULLY_CONNECTED"}),
        float_tables=frozenset({"LOGISTIC", "TANH"}),
        float32_factors=frozenset({"SOFTMAX"}),
    ),
    "tflm": IntegerProfile("tflm", frozenset()),
}


def profile_named(name: str) -> IntegerProfile:
    """Return a profile by name; raises UsageError for an unknown one."""
    if name not in PROFILES:
        raise UsageError(f"unknown integer profile '{name}'", f"known: {', '.join(PROFILES)}")
    return PROFILES[name]
