"""The container image of the steps and their Ray clusters. Locally they run in the current environment."""

import os

from arco_core import __version__

IMAGE_ENVIRONMENT = "ARCO_IMAGE"
"""Where set, the image's name in the cluster's registry: for compiling, and in every step's pod."""

IMAGE = os.environ.get(IMAGE_ENVIRONMENT, f"arco:{__version__}-python")
