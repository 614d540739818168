"""Networks: the field's 2D U-Net and 3D V-Net, and their EMA teacher."""

from arco_core.networks.base import PyramidNetwork
from arco_core.networks.build import build_network, channels_last

__all__ = ["PyramidNetwork", "build_network", "channels_last"]
