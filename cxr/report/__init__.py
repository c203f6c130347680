"""The report of an evaluation: an HTML page, a model card and a checklist.

Reads the result types of `evaluation` and returns text; no torch.
"""
