"""The method, and nothing else: steps, confidence, rollout, rewards, loss. No torch at import, no files."""
