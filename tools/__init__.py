"""Commands for those who work on the library: benchmarks, campaigns, measurements on a GPU, planted faults, sizes.

They are run from the top of a checkout and are no part of the installed package. Tests may import from here.
"""
