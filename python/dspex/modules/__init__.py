"""Modules: what a service calls. They check the inputs, make an operation and hand it to the runtime."""

from dspex.modules._chain_of_thought import ChainOfThought
from dspex.modules._module import Module
from dspex.modules._predict import Predict

__all__ = ["ChainOfThought", "Module", "Predict"]
