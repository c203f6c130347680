"""A registered model at work: request in, out-of-distribution check, network, calibrated answer out.

Ships with every registered model. Imports `imaging`, `common` and `errors` and runs on ONNX Runtime; never torch.
`mlflow_model` is the only module of `cxr` that imports MLflow.
"""
