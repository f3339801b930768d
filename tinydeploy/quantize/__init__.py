"""Turn a float Graph and samples of its inputs into an integer Graph, and say what that cost."""
