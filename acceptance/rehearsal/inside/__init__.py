"""Code that runs inside vLLM's own interpreter: imports torch, and nothing else of the suite."""
