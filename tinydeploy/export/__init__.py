"""Turn Graphs and generated sources into the formats of other tools."""
