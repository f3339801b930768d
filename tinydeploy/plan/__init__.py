"""Turn a Graph into a MemoryPlan: what runs in which order, and where every byte lies."""
