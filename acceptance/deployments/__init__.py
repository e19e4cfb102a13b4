"""Deployments as data, and how each vLLM version is told to serve them. Starts nothing."""
