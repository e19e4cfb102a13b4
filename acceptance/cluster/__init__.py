"""Servers over the nodes of a Ray cluster: each node's processes in the care of its own warden."""
