"""Turn command lines into calls of the pipeline, one module per command."""
