"""What each entry point does, under the entry point's name, and the modules that two of them share.

Imports `steps.registry`, `steps.runtime` and all of `cxr`.
"""
