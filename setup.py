"""Package metadata; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name='stochastic_refine',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'stochastic_refine/__init__.py').read_text()).group(1),
    description='Predict-and-refine diffusion deblurring for BasicSR ("Deblurring via Stochastic Refinement", CVPR 2022)',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # The folder basicsr/ holds launchers only; in the wheel it would overwrite the real BasicSR.
    packages=find_packages(include=['stochastic_refine*']),
    package_data={'stochastic_refine': ['weights/*', 'weights/check/*', 'comparison/*.yml', 'report/*.html',
                                       'preference/*.html']},
    install_requires=[
        'torch>=2.4',
        'numpy>=1.26',
        'Pillow>=11.2.1',  # earlier ones lose parts of EXIF and write no TIFF in several strips
        'opencv-python>=4.8',
        'safetensors>=0.4.3',
        'tqdm>=4.60',
        'platformdirs>=3.0',
        'filelock>=3.12',
        'pyyaml>=6.0',
        # BasicSR 1.4.2 cannot be built on Python 3.13: there restoring works, and training says what is missing.
        'basicsr>=1.4.2; python_version < "3.13"',
        'torchvision>=0.19; python_version < "3.13"',
        'setuptools; python_version < "3.13"',  # BasicSR imports distutils, which setuptools supplies from Python 3.12 on
    ],
    extras_require={
        # ST-LPIPS does not declare the last two
        'metrics': ['lpips>=0.1.4', 'torch-fidelity>=0.3.0', 'mmengine>=0.10.4', 'stlpips-pytorch>=0.0.2', 'ipython',
                    'torchsummary'],
        # PolyForm Noncommercial licence: only if you ask for it
        'iqa': ['pyiqa>=0.1.10'],
        'mmengine': ['mmengine>=0.10.4'],
        'export': ['onnx>=1.17', 'onnxscript>=0.2'],
        'hub': ['huggingface_hub>=0.25'],
        # restore clip.mp4; earlier ones write no display matrix
        'video': ['av>=18.1'],
        # networks that this package has not itself, and its own in ComfyUI and chaiNNer
        'spandrel': ['spandrel>=0.4.0'],
        # systems on Stable Diffusion
        'latent': ['diffusers>=0.36', 'transformers>=5.0'],
        # published weights on Google Drive
        'drive': ['gdown>=5.0'],
        # the page; gradio holds Pillow below 13, so nothing else asks for it
        'app': ['gradio>=6.0'],
        'demo': ['scikit-image>=0.22'],
        'preference': ['choix>=0.3.5', 'scipy>=1.11'],
        'figures': ['matplotlib>=3.8', 'scipy>=1.11'],
        # what .ci/run reads the code with; their rules change from version to version
        'dev': ['ruff==0.17.*', 'mypy==2.4.*', 'types-PyYAML', 'types-tqdm'],
        # just enough for the tests that need no optional package
        'bare': ['pytest>=7.4', 'pytest-xdist>=3.5', 'scikit-image>=0.22'],
        # Tests of pages also need a browser: Chromium or Chrome, on the PATH or named in CHROMIUM
        'test': ['pytest>=7.4', 'pytest-xdist>=3.5', 'scikit-image>=0.22', 'scipy>=1.11', 'lpips>=0.1.4',
                 'torch-fidelity>=0.3.0', 'mmengine>=0.10.4', 'stlpips-pytorch>=0.0.2', 'ipython', 'torchsummary',
                 'choix>=0.3.5', 'matplotlib>=3.8', 'spandrel>=0.4.0', 'playwright>=1.49', 'diffusers>=0.36',
                 'transformers>=5.0', 'onnx>=1.17', 'onnxscript>=0.2', 'onnxruntime>=1.20', 'huggingface_hub>=0.25',
                 'av>=18.1'],
    },
    entry_points={'console_scripts': ['stochastic-refine = stochastic_refine.cli:main']},
    classifiers=[
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
