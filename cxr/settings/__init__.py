"""The schema of `params.yaml`, its loading, and the classes it names.

`schema` says what is allowed, `load` merges file, profile and overrides, `instantiate` builds `_target_` objects from
an allowed list of packages. Imports `common` and `errors`; torch only inside `instantiate`, where an object is built.
"""
