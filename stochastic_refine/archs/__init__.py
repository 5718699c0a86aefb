"""Networks: plain ``nn.Module`` classes that import no BasicSR, one published network per file."""

from .build import ARCHS, arch_class, build_arch
from .nafnet_arch import NAFNet, NAFNetLocal
from .predict_refine_arch import PredictRefineNet
from .refine_unet_arch import RefineUNet

__all__ = ['ARCHS', 'NAFNet', 'NAFNetLocal', 'PredictRefineNet', 'RefineUNet', 'arch_class', 'build_arch']
