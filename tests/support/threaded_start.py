"""A module that starts a thread when it is imported, for forkservers that preload it."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
