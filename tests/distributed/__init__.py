"""Two processes that talk over gloo on this machine: what a node of GPUs does, as far as CPUs can show it."""
