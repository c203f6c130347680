"""What every room may use: atomic file writing, what the hardware offers, one style for all figures.

Imports `cxr.errors` alone; no torch, and nothing that knows what an X-ray is.
"""
