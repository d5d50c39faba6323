"""Preloaded into a spawned worker, it takes back what the kernel was asked to do when the service ends."""

from tests.support.work import disarm

disarm()
