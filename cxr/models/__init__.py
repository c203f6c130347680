"""Networks: backbones and heads, pretrained weights, freezing, ensembles, and the bundle a network is stored in.

Imports torch, `imaging` (for the input spec) and `settings`; knows neither data nor training.
"""
