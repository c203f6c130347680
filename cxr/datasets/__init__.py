"""From a source of X-rays to a manifest of splits without leakage.

Sources and archives, folder layouts, inspection of every file, splits by patient, pseudonyms, leakage checks, phantoms.
Imports `imaging`, `settings`, `common` and `errors`; never torch.
"""
