"""Many runs that answer one question: every row on the same problems, in one table with intervals.

:mod:`.rows` declares what is compared and :mod:`.plan` at which cost, :func:`.run.run_experiment` trains and measures
what is left to do (``stepgrpo compare``), and a :class:`~.record.Record` holds what came out, for tables, pictures and
widgets.
"""
