"""OpenMMLab: predict-and-refine networks trained by mmengine's runner, with MMagic's conventions and without mmcv.

In a config ``custom_imports = dict(imports=['stochastic_refine.integrations.mmengine'])`` and either ``default_scope =
'stochastic_refine'`` or, in another project's, ``type='stochastic_refine.StochasticRefine'``. Configs: ``options/mmengine``.
Training: ``python -m stochastic_refine.integrations.mmengine CONFIG``.
"""

import sys

from .host import check_mmengine

# ``python -m`` imports this before __main__, which says what is missing without a traceback; argv[0] is '-m' until then.
_starting = sys.argv[:1] == ['-m']
if not _starting:
    check_mmengine()
try:
    from .datasets import DrawSampler, PairedImageDataset, SyntheticBlurDataset
    from .hooks import IterationSeedHook, PortableCheckpointHook
    from .metrics import ImageMetric
    from .model import DataPreprocessor, StochasticRefine
    from .registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS
except ImportError:
    if not _starting:
        raise

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'METRICS', 'MODELS', 'DataPreprocessor', 'DrawSampler', 'ImageMetric',
           'IterationSeedHook', 'PairedImageDataset', 'PortableCheckpointHook', 'StochasticRefine', 'SyntheticBlurDataset']
