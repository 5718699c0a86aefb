"""ShardedValidation: metrics that cannot be had, and images that a metric cannot judge."""

from __future__ import annotations

import logging
import math

import pytest
from test_restoration_model import loader, validate

from stochastic_refine.errors import MetricUnavailable


@pytest.fixture
def metric(parsed):
    """A function that registers a metric while the test runs and returns its options."""
    from basicsr.utils.registry import METRIC_REGISTRY
    names = []

    def register(function):
        METRIC_REGISTRY.register(function)
        names.append(function.__name__)
        return {'type': function.__name__, 'better': 'lower'}

    yield register
    for name in names:
        del METRIC_REGISTRY._obj_map[name]


@pytest.fixture
def log():
    """What BasicSR's logger wrote: pairs of level and message."""
    entries = []
    handler = logging.Handler()
    handler.emit = lambda record: entries.append((record.levelname, record.getMessage()))
    logger = logging.getLogger('basicsr')
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield entries
    logger.removeHandler(handler)
    logger.setLevel(level)


def warnings_in(log):
    return [message for level, message in log if level == 'WARNING']


def test_a_metric_that_cannot_be_had_is_left_out_with_one_warning(build_model, restoration_options, metric, log):
    calls = []

    def calculate_missing(img, img2, crop_border=0, **kwargs):
        calls.append(img.shape)
        raise MetricUnavailable('The metric Missing needs a package; install it.')

    restoration_options['val']['metrics'] = {'missing': metric(calculate_missing), **restoration_options['val']['metrics']}
    model = build_model(restoration_options)
    for iteration in (1, 2):
        assert list(validate(model, restoration_options, iteration)) == ['psnr']
    assert len(calls) == 1
    assert warnings_in(log) == ["The metric Missing needs a package; install it. 'missing' is left out for the rest of this "
                                'run.']
    del restoration_options['val']['metrics']['psnr']
    model = build_model(restoration_options)
    assert validate(model, restoration_options) == {}
    assert 'every metric was left out' in log[-1][1]


def test_averages_skip_images_without_a_score(build_model, restoration_options, metric, log):
    scores = iter([math.nan, 1.0, 4.0, math.nan] + 4 * [math.nan])

    def calculate_some(img, crop_border=0, **kwargs):
        assert 'img2' not in kwargs
        return next(scores)

    restoration_options['val']['metrics']['some'] = metric(calculate_some)
    model = build_model(restoration_options)
    assert validate(model, restoration_options, 1)['some'] == 2.5
    assert any('some has no value for 2 of 4 images' in message for _, message in log)
    assert math.isnan(validate(model, restoration_options, 2)['some'])
    best = model.best_metric_results['pairs']['some']
    assert (best['val'], best['iter']) == (2.5, 1)
    scores = iter([math.inf, 1.0, 4.0, math.nan] + 4 * [math.inf])  # exact images have an infinite PSNR
    assert [validate(model, restoration_options, step)['some'] for step in (3, 4)] == [2.5, math.inf]


def test_a_metric_that_another_process_left_out_is_left_out_by_all(build_model, restoration_options, metric, monkeypatch, log):
    """Process 1 of 2 cannot have the metric; an average over the images of process 0 would be another figure."""
    from stochastic_refine.models import validation

    def calculate_half(img, crop_border=0, **kwargs):
        if model.opt['rank'] == 1:
            raise MetricUnavailable('The metric Half has no weights; copy them.')
        return 1.0

    restoration_options['val']['metrics']['half'] = metric(calculate_half)
    parts = []
    monkeypatch.setattr(validation, '_gather', lambda scores, world_size: parts.append(scores) or {})
    for rank in (1, 0):
        model = build_model(restoration_options)
        model.opt.update(rank=rank, world_size=2)
        if rank == 0:
            monkeypatch.setattr(validation, '_gather', lambda scores, world_size: {**parts[0], **scores})
        model.validation(loader(restoration_options), 1, None, False)
    assert [set(score) for _, score in sorted(parts[0].items())] == [{'psnr'}, {'psnr'}]
    assert list(model.metric_results) == ['psnr']
    assert sum('Not every process' in message for message in warnings_in(log)) == 1
