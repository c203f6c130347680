"""Work of each entry point, in the module of the same name, and modules that several of them share.

Imports `steps.registry`, `steps.runtime` and all of `cxr`.
"""
