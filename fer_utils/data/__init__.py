"""The dataset: find it, read it, say which copy it is, audit it, split it, draw a synthetic one."""
