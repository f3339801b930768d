"""Turn model files into Graphs."""
