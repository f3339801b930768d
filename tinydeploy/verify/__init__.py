"""Compare devices and runtimes with the integer reference."""
