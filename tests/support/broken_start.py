"""A module that cannot be imported, for workers that preload it."""

print("about to fail")
raise RuntimeError("the model file is missing")
