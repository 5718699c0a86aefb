"""What Replicate's cog serves (cog.yaml: ``predict: "predict.py:Predictor"``, and stochastic_refine among its packages)."""
import tempfile
from pathlib import Path as LocalPath

from cog import BasePredictor, Input, Path

from stochastic_refine import Deblurrer


class Predictor(BasePredictor):
    def setup(self) -> None:
        self.deblurrer = Deblurrer.from_pretrained('small', keep_sharp=True)

    def predict(self,
                image: Path = Input(description='A blurred photo'),  # noqa: B008  (cog reads these)
                tradeoff: float = Input(description='0: faithful ... 1: vivid', default=0.5, ge=0, le=1),  # noqa: B008
                seed: int = Input(description='Of the first sample', default=0, ge=0)) -> Path:  # noqa: B008
        suffix = LocalPath(str(image)).suffix.lower() or '.png'
        out = LocalPath(tempfile.mkdtemp()) / f'sharp{suffix}'
        self.deblurrer(str(image), tradeoff=tradeoff, seed=seed, keep_samples=False).save(out)
        return Path(out)
