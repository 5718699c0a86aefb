#!/usr/bin/env bash
# Run the tests as they run on other machines: bash scripts/test_matrix.sh [ROW ...] [-- pytest's arguments]
#
#   newest    the newest packages, all of them (what scripts/test.sh does)
#   oldest    the oldest versions that setup.py allows (scripts/oldest.txt), in .venv-oldest
#   minimal   without any optional package, in .venv-minimal
#   threads1  one thread      threads2  two threads
#   plain     a processor without vector instructions that PyTorch or oneDNN would choose other kernels for
#   avx2      a processor with AVX2 and no more
#   random    in a random order, whose seed is printed
#   app       the page's tests alone, with gradio, which holds Pillow back and so has an environment of its own over the newest
#
# Without a row all run, one after the other; the first that fails ends it. Each environment takes 6 GB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rows=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do rows+=("$1"); shift; done
[ $# -gt 0 ] && shift
[ ${#rows[@]} -gt 0 ] || rows=(newest oldest minimal threads1 threads2 plain avx2 random app)

run() {
    local row=$1; shift
    case $row in
        newest) bash scripts/test.sh "$@" ;;
        oldest) VENV=.venv-oldest PIP_CONSTRAINT=$PWD/scripts/oldest.txt bash scripts/test.sh "$@" ;;
        minimal) VENV=.venv-minimal EXTRAS=bare bash scripts/test.sh "$@" ;;
        threads1) OMP_NUM_THREADS=1 bash scripts/test.sh "$@" ;;
        threads2) OMP_NUM_THREADS=2 bash scripts/test.sh "$@" ;;
        plain) ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 bash scripts/test.sh "$@" ;;
        avx2) ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 bash scripts/test.sh "$@" ;;
        random)
            (source scripts/setup.sh && pip install -q --no-deps --upgrade --target .venv-randomly pytest-randomly)
            PYTHONPATH=$PWD/.venv-randomly bash scripts/test.sh "$@" ;;
        app)
            (source scripts/setup.sh
             python -m venv .venv-app
             python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >.venv-app/newest
             cp .venv-app/newest "$(.venv-app/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/newest.pth"
             .venv-app/bin/pip install -q 'gradio>=6.0'
             PYTHONPATH=$PWD OMP_NUM_THREADS=1 .venv-app/bin/python -m pytest tests/test_app "$@") ;;
        *) echo "Error: no row '$row'; the rows are in the head of $0." >&2; exit 2 ;;
    esac
}

for row in "${rows[@]}"; do
    echo "== $row"
    run "$row" "$@"
done
