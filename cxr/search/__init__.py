"""Search of hyperparameters: a space of settings, the trials that Optuna proposes in it, a picture of what they found.

Imports only `errors`, `common` and `settings`; knows nothing of runs and never trains. Optuna is imported only when a
study is made.
"""
