"""Turn firmware into a device that answers requests."""
