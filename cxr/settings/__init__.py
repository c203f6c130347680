"""The schema of `params.yaml`, the loader, and construction of the classes that settings name.

`schema` defines types and ranges, `load` merges file, profile and overrides, `instantiate` builds `_target_` objects
from an allowlist of packages. Imports only `errors`; torch is imported inside `instantiate`, when an object is built.
"""
