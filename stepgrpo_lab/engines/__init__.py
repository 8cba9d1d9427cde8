"""Engines drive trajectory machines with a model. They hold no policy: every decision is the machine's."""
