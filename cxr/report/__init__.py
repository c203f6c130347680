"""One report from the results of an evaluation: an HTML page, a model card, a checklist.

Reads the result types of `evaluation` and draws nothing but text; no torch.
"""
