"""Networks: plain ``nn.Module`` classes that import no BasicSR, one published network per file."""

from importlib import import_module

from .build import ARCHS, arch_class, build_arch
from .dbgan_arch import DBGAN
from .deblurganv2_arch import DeblurGANv2
from .deblurganv2_discriminators import DoubleScaleDiscriminator, MultiScaleDiscriminator, NLayerDiscriminator
from .evssm_arch import EVSSM
from .fftformer_arch import FFTformer, fftformer
from .hidiff_arch import HIDiff
from .hidiff_prior import HIDiffDenoiser, HIDiffEncoder
from .hidiff_transformer import HIDiffTransformer
from .hinet_arch import HINet
from .maxim_arch import MAXIM
from .mimo_unet_arch import MIMOUNet, MIMOUNetPlus
from .mprnet_arch import MPRNet
from .nafnet_arch import NAFNet, NAFNetLocal
from .predict_refine_arch import PredictRefineNet
from .refine_unet_arch import RefineUNet
from .restormer_arch import Restormer
from .saphnet_arch import SAPHNet
from .simplenet_arch import SimpleNet

__all__ = [
    'ARCHS', 'DBGAN', 'DeblurGANv2', 'DoubleScaleDiscriminator', 'EVSSM', 'FFTformer', 'HIDiff', 'HIDiffDenoiser',
    'HIDiffEncoder', 'HIDiffTransformer', 'HINet', 'MAXIM', 'MIMOUNet',
    'MIMOUNetPlus', 'MPRNet', 'MultiScaleDiscriminator', 'NAFNet', 'NAFNetLocal', 'NLayerDiscriminator', 'PredictRefineNet',
    'RefineUNet', 'Restormer', 'SAPHNet', 'SimpleNet', 'arch_class', 'build_arch', 'fftformer',
]

# A room above this one has networks too. Imports run down; so it is named here, and they list themselves.
import_module('stochastic_refine.latent')
