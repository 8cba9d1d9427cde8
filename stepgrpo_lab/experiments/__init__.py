"""The paper's comparison in miniature: every method on problems whose truth is known, in one table with intervals.

:mod:`.rows` declares what is compared, :func:`.compare.compare_methods` carries it out (``stepgrpo compare``).
"""
