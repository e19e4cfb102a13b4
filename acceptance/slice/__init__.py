"""The slice: DeepSeek-R1 at full width with five layers, for one GPU; no download, no weights."""
