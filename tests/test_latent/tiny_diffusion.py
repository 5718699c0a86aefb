"""Sizes of tiny networks on Stable Diffusion."""

#: Arguments of ``configs``: some 2 million numbers, most of them the vocabulary's.
SIZE = {'channels': 32, 'mults': [1, 1], 'head_channels': 16, 'context': 32, 'vae_channels': 32, 'vae_mults': [1, 1, 1, 1],
        'text_layers': 1, 'text_heads': 2}
#: A DeblurDiff as small.
SMALL = {'type': 'DeblurDiff', 'kpn_channels': 32, 'kpn_mults': [1, 1], 'kpn_head_channels': 16, 'kernel_size': 3}
