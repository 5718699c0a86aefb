"""DeblurDiff (Kong et al., NeurIPS 2025): latent kernel prediction and element-wise adaptive convolution in Stable Diffusion."""
