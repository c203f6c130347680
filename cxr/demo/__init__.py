"""A local web page that shows the answer of a registered model for an X-ray.

Imports `serving` and the phantom sample of `datasets`; never torch.
"""
