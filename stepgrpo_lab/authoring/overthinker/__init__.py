"""The build of the Overthinker."""
