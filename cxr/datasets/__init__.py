"""From a source of X-rays to a manifest of leak-free splits.

Sources and archives, folder layouts, inspection of every file, splitting by patient, leakage checks, and the phantom
sample. Imports `imaging` and `settings`; never torch.
"""
