"""A module that never finishes being imported, for workers that preload it."""

import threading

print("about to hang")
threading.Event().wait()
