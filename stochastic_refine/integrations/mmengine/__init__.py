"""OpenMMLab: predict-and-refine networks trained by mmengine's runner, with MMagic's conventions and without mmcv.

In a config ``custom_imports = dict(imports=['stochastic_refine.integrations.mmengine'])`` and either ``default_scope =
'stochastic_refine'`` or, in another project's, ``type='stochastic_refine.StochasticRefine'``. Configs: ``options/mmengine``.
Training: ``python -m stochastic_refine.integrations.mmengine CONFIG``.
"""

import sys

from .host import check_mmengine

# ``python -m`` imports this before __main__, which says the same without a traceback; argv[0] is '-m' until then.
if sys.argv[:1] != ['-m']:
    check_mmengine()
try:
    from .datasets import DrawSampler, PairedImageDataset, SyntheticBlurDataset
    from .hooks import IterationSeedHook, PortableCheckpointHook
    from .metrics import ImageMetric
    from .model import DataPreprocessor, StochasticRefine
    from .registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS
except ImportError:
    if sys.argv[:1] != ['-m']:
        raise

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'METRICS', 'MODELS', 'DataPreprocessor', 'DrawSampler', 'ImageMetric',
           'IterationSeedHook', 'PairedImageDataset', 'PortableCheckpointHook', 'StochasticRefine', 'SyntheticBlurDataset']
