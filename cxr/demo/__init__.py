"""A local web page that shows what a registered model says of an X-ray.

Imports `serving` and the phantom sample of `datasets`; never torch.
"""
