"""The page made of the executed notebooks."""
