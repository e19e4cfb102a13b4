"""The rehearsal lane: real vLLM on CPU serving a tiny DeepSeek-V3 that has learned a few tasks.

Modules here run beside the tests and import neither vllm nor torch; those of `inside` run in the
interpreter that vLLM is installed in, and import nothing of the suite but each other, the tasks
and their words. `weights` holds the checkpoint; docs/rehearsal.md says what it can do.
"""
