"""Turn a Graph and its MemoryPlan into C sources."""

from tinydeploy.codegen.emit import GeneratedModel, Provenance, generate
from tinydeploy.codegen.sources import SourceTree

__all__ = ["GeneratedModel", "Provenance", "SourceTree", "generate"]
