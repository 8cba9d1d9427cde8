"""What only a GPU can tell: ``python -m tools.gpu.measure``."""
