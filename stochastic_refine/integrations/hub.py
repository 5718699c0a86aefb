"""Our pair as a model of the Hugging Face hub (an extra: ``.[hub]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..archs import PredictRefineNet
from ..archs.build import without_pretrained
from ..archs.pretrained import complete_options, read_weights, require_network
from ..checkpoints import Checkpoint
from ..checkpoints.hub_folder import fetch_hub_folder, is_hub_folder, read_hub_folder, write_hub_folder
from ..checkpoints.weights_folder import find_weights
from ..errors import InputError
from ..files import make_folder
from ..inference.operating_point import OperatingPoint, default_point
from ..inference.weights import network_of

try:
    from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
except ImportError as error:
    raise InputError(f'The Hugging Face hub needs the package huggingface_hub, which cannot be imported ({error}); run: pip '
                     "install 'stochastic_refine[hub]'.") from error

_TAGS = ['deblurring', 'image-restoration', 'diffusion']


class HubPredictRefineNet(PredictRefineNet, PyTorchModelHubMixin, library_name='stochastic_refine', tags=_TAGS,
                          pipeline_tag='image-to-image', license='apache-2.0'):
    """:class:`PredictRefineNet` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    What a checkpoint knows beside weights and network, its operating points in their order first, is ``metadata``; it goes
    with the folder, and :class:`~stochastic_refine.Deblurrer` reads it there. Paths of this machine do not.
    """

    # No constructor of its own: the mixin records the arguments by its names.
    metadata: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_weights(cls, name_or_path: str | Path) -> HubPredictRefineNet:
        """The network of a checkpoint, by name or file, in evaluation mode.

        Raises:
            InputError: If it cannot be used, or is of another network than PredictRefineNet.
        """
        path = find_weights(name_or_path)
        return cls._of(require_network(read_weights(path), str(path)), str(path))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> HubPredictRefineNet:
        """The network of a folder that :meth:`save_pretrained` wrote, or of a repository of the hub, in evaluation mode.

        Args:
            pretrained_model_name_or_path: The folder, or USER/NAME.
            **options: Of ``huggingface_hub.hf_hub_download``, such as ``revision`` and ``token``.

        Raises:
            InputError: If there is no such thing, or it is of another network.
        """
        folder = Path(pretrained_model_name_or_path)
        if not is_hub_folder(folder):
            if folder.exists():
                raise InputError(f'{folder} holds no model.safetensors; give a folder that save_pretrained wrote.')
            folder = fetch_hub_folder(str(pretrained_model_name_or_path), **options)
        return cls._of(read_hub_folder(folder), str(pretrained_model_name_or_path))

    @classmethod
    def _of(cls, checkpoint: Checkpoint, where: str) -> HubPredictRefineNet:
        network = without_pretrained(checkpoint.metadata['network'])
        if network['type'] != PredictRefineNet.__name__:
            raise InputError(f"{where} is of the network {network['type']}, not of PredictRefineNet; restore with it by "
                             'Deblurrer.from_pretrained.')
        checked, _, metadata = network_of(checkpoint, where)
        net = cls(**{key: value for key, value in network.items() if key != 'type'})
        net.load_state_dict(checked.state_dict())
        net.metadata = {key: value for key, value in metadata.items() if key != 'network'}
        return net.eval()

    def save_pretrained(self, save_directory: str | Path, *, model_card_kwargs: dict[str, Any] | None = None,
                        **options: Any) -> str | None:
        """As the mixin's: weights, ``config.json`` and a card, which is not written over where there is one."""
        self._network()  # refuses before the mixin removes an older config.json
        make_folder(save_directory)
        told = {'name': Path(save_directory).name, **(model_card_kwargs or {})}
        return super().save_pretrained(save_directory, model_card_kwargs=told, **options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """As the mixin's."""
        return super().push_to_hub(repo_id, model_card_kwargs={**(model_card_kwargs or {}), 'name': repo_id}, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_hub_folder(save_directory, Checkpoint(self.state_dict(), {**self.metadata, 'network': self._network()}))

    def _network(self) -> dict[str, Any]:
        """The options of this network, with what weights told of its parts and without their paths."""
        if 'predictor' not in self._hub_mixin_config:
            raise InputError(f'The predictor, {type(self.predictor).__name__}, was given as a network, which no config.json '
                             'can tell; give its options ({type: ...}), after stochastic_refine.archs.build.arch listed it.')
        arguments = {key: value for key, value in self._hub_mixin_config.items() if value is not None or key == 'predictor'}
        return {'type': PredictRefineNet.__name__, **without_pretrained(complete_options(arguments))}

    def generate_model_card(self, name: str = 'FOLDER', **_: Any) -> ModelCard:
        """A card of what is known: the checkpoint's own words if it has some, else its network and operating points."""
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        body = self.metadata.get('card') or self._described(name)
        return ModelCard(f'---\n{data.to_yaml()}\n---\n\n{body.strip()}\n{_USE.format(name=name)}')

    def _described(self, name: str) -> str:
        rows = [(part, type(net).__name__, f'{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M')
                for part, net in (('predictor', self.predictor), ('denoiser', self.denoiser)) if net is not None]
        points = {key: OperatingPoint.from_options(point) for key, point in self.metadata.get('operating_points', {}).items()
                  } or {'default': default_point(self)}
        refiner = 'diffusion' if self.flow is None else 'flow'
        iteration = self.metadata.get('iteration')
        trained = [f'Trained for {iteration} iterations.', ''] if iteration and iteration > 0 else []
        return '\n'.join([
            f'# {name}', '', f'A predict-and-refine network for blurred photos: a predictor restores once, and a {refiner} '
            'samples the detail that the prediction lacks.', '', *trained, '| part | network | parameters |', '|---|---|---|',
            *(f'| {" | ".join(row)} |' for row in rows), '', '| operating point | what is done | sampler |', '|---|---|---|',
            *(f'| `{key}` | {point.words} | {point.sampler} |' for key, point in points.items()), '', '## Limits', '',
            'Samples invent plausible detail. Do not read text, faces or number plates off them.'])


_USE = '''
## Use

```python
from stochastic_refine import Deblurrer
result = Deblurrer.from_pretrained('{name}')('photo.jpg', samples=4)
result.save('sharp.jpg')
```

## Citation

```bibtex
@inproceedings{{whang2022deblurring,
  title = {{Deblurring via Stochastic Refinement}},
  author = {{Whang, Jay and Delbracio, Mauricio and Talebi, Hossein and Saharia, Chitwan and Dimakis, Alexandros G. and
            Milanfar, Peyman}},
  booktitle = {{CVPR}},
  year = {{2022}}
}}
```
'''
