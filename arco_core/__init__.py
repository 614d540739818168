"""ARCO: semi-supervised segmentation with stratified group sampling, in plain PyTorch.

You et al., *Rethinking Semi-Supervised Medical Image Segmentation: A Variance-Reduction
Perspective*, NeurIPS 2023, arXiv 2302.01735.
"""

__version__ = "0.1.0"
