from hypothesis import settings

# A busy machine is no failure; `derandomize` makes a run of CI repeatable.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")
