"""Launch, own, read and watch one vLLM server."""
