"""Faults planted one at a time in a copy of the checkout, to see whether the tests catch them.

``python -m tools.planted_faults`` plants every fault of :mod:`tools.planted_faults.catalogue`. A fault that survives
means that the tests would let the same mistake pass in a real change.
"""
