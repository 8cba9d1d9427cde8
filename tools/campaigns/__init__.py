"""Long campaigns against the library, ``python -m tools.campaigns kill|fuzz|load``; their records are in ``records``.

What each holds is in ``tests/robustness/README.md``; tests of seconds use the same functions.
"""
