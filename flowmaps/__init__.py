"""Flow maps: few-step generative models in one notation. Import the submodule that you need."""

__version__ = "0.1.0"
