"""Helpers for all packages: atomic file writing, remote storage, locks, checksums, cores, the style of figures.

Imports only `cxr.errors`; no torch, and nothing specific to X-rays.
"""
