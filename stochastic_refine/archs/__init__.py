"""Networks: plain ``nn.Module`` classes that import no BasicSR, one published network per file."""

from .build import ARCHS, arch_class, build_arch
from .dbgan_arch import DBGAN
from .deblurganv2_arch import DeblurGANv2
from .fftformer_arch import FFTformer
from .hinet_arch import HINet
from .mimo_unet_arch import MIMOUNet, MIMOUNetPlus
from .mprnet_arch import MPRNet
from .nafnet_arch import NAFNet, NAFNetLocal
from .predict_refine_arch import PredictRefineNet
from .refine_unet_arch import RefineUNet
from .restormer_arch import Restormer

__all__ = [
    'ARCHS', 'DBGAN', 'DeblurGANv2', 'FFTformer', 'HINet', 'MIMOUNet', 'MIMOUNetPlus', 'MPRNet', 'NAFNet', 'NAFNetLocal',
    'PredictRefineNet', 'RefineUNet', 'Restormer', 'arch_class', 'build_arch',
]
