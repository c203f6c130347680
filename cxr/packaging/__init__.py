"""From a bundle to the folder that is served: ONNX export, the fitted out-of-distribution detector, a final check.

The bridge between the torch side and `serving`: it imports both.
"""
