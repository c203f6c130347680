"""Pixels: files to grey levels, grey levels to the raster a network sees. Nothing else in the project touches them.

Ships with every registered model, so it imports numpy, Pillow and pydicom, `common` and `errors`; never torch.
"""
