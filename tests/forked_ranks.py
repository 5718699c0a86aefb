"""One of several processes of a command, as torchrun starts them, in the fork server of ``forked_launch``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import forked_launch

from stochastic_refine.inference import folder as restore_folder
from stochastic_refine.models import validation


def run(argv: list[str], folder: str, rank: int, size: int, port: int) -> None:
    """``stochastic-refine ARGV`` as process ``rank`` of ``size`` in ``folder``, which notes there what it did."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    _note_into(Path(folder), rank)
    forked_launch.run(argv, folder, f'{folder}/out{rank}', f'{folder}/err{rank}')


def _note_into(folder: Path, rank: int) -> None:
    """Have each image written in ``images{rank}``, and the figures of a validation, to the last bit, in ``figures{rank}``."""
    restore, save, record = restore_folder._restore, validation._save_image, validation.ShardedValidation._record

    def note(name: str) -> None:
        with (folder / f'images{rank}').open('a') as file:
            print(name, file=file)

    def restore_and_note(job, on_call=None):
        note(job.photo.name)
        return restore(job, on_call)

    def save_and_note(image, path):
        note(os.path.basename(path))
        save(image, path)

    def record_and_note(self, *rest):
        record(self, *rest)
        figures = {key: value.hex() for key, value in self.metric_results.items()}
        (folder / f'figures{rank}').write_text(json.dumps(figures))

    restore_folder._restore = restore_and_note
    validation._save_image, validation.ShardedValidation._record = save_and_note, record_and_note
