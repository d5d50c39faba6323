"""A module that kills whoever imports it, for workers that preload it."""

import os
import signal

print("about to die", flush=True)
os.kill(os.getpid(), signal.SIGSEGV)
