"""A simulated server: ground truth for the suite's own instruments, and a demonstration without a
GPU. It answers like vLLM at times that a declared latency model computes; it proves nothing of any
deployment."""
