"""What a Space of Hugging Face runs (requirements.txt: ``stochastic_refine[app]``): the page of ``stochastic-refine app``."""
import os
import tempfile
from pathlib import Path

os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
from stochastic_refine.app.machine import Machine  # noqa: E402
from stochastic_refine.app.page import build  # noqa: E402

demo = build(Machine(weights='small'), Path(tempfile.mkdtemp()), max_megapixels=4.0)

if __name__ == '__main__':
    demo.launch()  # the Space says by GRADIO_SERVER_NAME where
