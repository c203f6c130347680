"""Helpers for all packages: atomic file writing, locks, checksums, the number of cores, the style of figures.

Imports only `cxr.errors`; no torch, and nothing specific to X-rays.
"""
