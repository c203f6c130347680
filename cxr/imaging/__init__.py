"""Image decoding and preprocessing: from the bytes of a file to the raster that a network sees.

Ships with every registered model. Imports only numpy, Pillow, pydicom, `common` and `errors`; never torch.
"""
