"""What happens when things go wrong: one test or campaign for each promise in README.md."""
