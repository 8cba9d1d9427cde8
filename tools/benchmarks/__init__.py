"""Benchmarks of the rollout engine and of what surrounds it, against other strategies on the same machine.

``python -m tools.benchmarks`` runs them all, prints a table and writes ``data/results/speed.json`` and ``speed.md``.
Every figure that counts is a ratio of times taken alternately within one run, on one thread.
"""
