"""The container image that the steps run in on a cluster. Locally they run in the current environment."""

from arco_core import __version__

IMAGE = f"arco:{__version__}-python"
