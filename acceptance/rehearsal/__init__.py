"""The rehearsal lane: real vLLM on CPU serving a tiny DeepSeek-V3 checkpoint.

Modules here run beside the tests and import neither vllm nor torch; those of `inside` run in the
interpreter that vLLM is installed in, and import nothing of the suite but each other.
"""
