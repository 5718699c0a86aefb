"""``python -m stochastic_refine.integrations.mmengine CONFIG``: OpenMMLab's ``tools/train.py``."""

import sys

from ...errors import InputError
from .host import check_mmengine

if __name__ == '__main__':
    try:
        check_mmengine()
        from .command import main
        main()
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('Stopped; --resume goes on from the last checkpoint.', file=sys.stderr)
        sys.exit(130)
