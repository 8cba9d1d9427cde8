"""Static pages: what can be tried without installing anything."""
