"""The build of the notebooks."""
