"""The page itself: gradio's components, and what happens when one is touched. All that is computed is :mod:`.session`'s."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import InputError, refusal_of, words_of
from ..inference.getting import get_weights
from .fields import DOUBT, KNOB, SAMPLES, SEED
from .knob import PATH, Settings
from .machine import Machine
from .pictures import SAMPLE_SIDE, png, shown_size, with_doubt
from .session import Session
from .views import View
from .visitors import Visitors

_HEAD = """# Sharp photos from blurred ones
Drop photos, press *Restore*, then turn the knob: **faithful** is what the model is sure of, **vivid** is one plausible photo. A
generative model invents detail: do not read licence plates, faces or text off a restored photo."""
#: Fonts of this machine: gradio's themes fetch theirs from the network.
_THEME = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
#: Restoring waits in one line; what only looks at samples does not wait behind it.
_RESTORING: dict[str, Any] = {'concurrency_id': 'restore', 'concurrency_limit': 1}
_LOOKING: dict[str, Any] = {'concurrency_id': 'look', 'concurrency_limit': 4, 'show_progress': 'hidden'}
#: Wait, in the browser, for photos that it still sends.
_SENT = """async () => {
    while (document.querySelector('#photos .uploading')) await new Promise(done => setTimeout(done, 100));
    return [];
}"""
# gradio's own check raises before a handler is asked, in a cleared field with a traceback; .fields has ours. The classes are
# changed, since gradio makes fields anew by their class when they are updated, and writes a file beside ours for a subclass.
gr.Slider.preprocess = gr.Number.preprocess = lambda field, value: value


class Page:
    """The components by name, and their handlers, which return what changes by component."""

    def __init__(self, visitors: Visitors) -> None:
        self.visitors, self.machine = visitors, visitors.machine
        with gr.Blocks(title='stochastic_refine', analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
            self.blocks = blocks
            self._lay_out()
            self._wire()

    def _lay_out(self) -> None:
        weights = self.machine.first
        points = self._points(weights)
        first = self.machine.load(weights)[1].operating_point()
        gr.Markdown(_HEAD)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.photos = gr.File(label='Photos', file_count='multiple', height=140, elem_id='photos')
                with gr.Row():
                    self.restore = gr.Button('Restore', variant='primary', scale=2, min_width=120, elem_id='restore')
                    self.stop = gr.Button('Stop', min_width=80, elem_id='stop')
                self.status = gr.Textbox(label='Status', interactive=False, lines=3, max_lines=10, elem_id='status')
                self.weights = gr.Dropdown(self._weights(), value=weights, label='Weights', elem_id='weights')
                self.get = gr.Button('Get', visible=False, elem_id='get')
                self.point = gr.Dropdown(points, value=points[0][1], label='Operating point', interactive=len(points) > 1,
                                         info=self._words(weights, points[0][1]), elem_id='point')
                self.samples = gr.Slider(SAMPLES.low, SAMPLES.high, step=1, elem_id='samples', label=SAMPLES.name,
                                         value=min(first.num_samples, SAMPLES.high))
                self.seed = gr.Number(0, precision=0, minimum=SEED.low, maximum=SEED.high, label=SEED.name, elem_id='seed')
            with gr.Column(scale=3):
                self.shown = gr.Dropdown([], label='Photo', visible=False, elem_id='shown')
                self.slider = gr.ImageSlider(label='Blurred | restored', format='png', interactive=False, max_height=640,
                                             elem_id='slider')
                with gr.Row():
                    self.knob = gr.Slider(KNOB.low, KNOB.high, value=0, step=0.05, label=f'{KNOB.name}: 0 faithful ... 1 vivid',
                                          elem_id='knob')
                    self.doubt = gr.Slider(DOUBT.low, DOUBT.high, value=0, step=0.05, label=f'{DOUBT.name}: fade it in',
                                           elem_id='doubt')
                self.caption = gr.Textbox(label='Shown', interactive=False, elem_id='caption')
                self.gallery = gr.Gallery(label='Samples: the one chosen is the vivid end of the knob', columns=4, height=240,
                                          format='png', allow_preview=False, interactive=False, elem_id='samples-shown')
                with gr.Row():
                    self.download = gr.Button('Files to download', elem_id='download')
                    self.everything = gr.Checkbox(label='with every sample, and the map of doubt', elem_id='everything')
                self.files = gr.File(label='As the photos came: format, depth, EXIF, colour profile', visible=False,
                                     interactive=False, elem_id='files')
        self.chosen = gr.State(0)

    def _wire(self) -> None:
        settings = [self.weights, self.point, self.samples, self.seed, self.knob]
        looking = [self.shown, *settings, self.doubt, self.chosen]
        seen = [self.slider, self.caption]
        all_seen = [*seen, self.gallery, self.chosen]

        def on(event: Callable[..., Any], handler: Callable[..., Any], inputs: Any = None, outputs: Any = None,
               **options: Any) -> Any:
            return event(self._in_words(handler), inputs, outputs, api_visibility='private', **options)

        on(self.blocks.load, self._arrive, None, [self.weights, self.status])
        self.blocks.unload(self.visitors.forget)
        on(self.photos.change, self._drop, [self.photos, *looking], [self.status, self.shown, self.files, *all_seen],
           **_LOOKING)
        # What is seen comes along with what changes: asked for after it, the browser might still send the values before
        seeing, points = [self.shown, self.seed, self.doubt], [self.status, self.point, self.samples, self.knob, *all_seen]
        on(self.weights.input, self._choose_weights, [self.weights, *seeing], [self.get, self.restore, *points], **_LOOKING)
        on(self.get.click, self._get, [self.weights, *seeing], [self.weights, self.get, self.restore, *points],
           concurrency_id='get', concurrency_limit=1, show_progress_on=self.status)
        on(self.point.input, self._choose_point, [self.weights, self.point, *seeing], points, **_LOOKING)
        for component in (self.knob, self.doubt):
            on(component.change, self._look, looking, seen, trigger_mode='always_last', **_LOOKING)
        for component in (self.samples, self.seed, self.shown):
            on(component.input, self._look_at_all, looking, all_seen, trigger_mode='always_last', **_LOOKING)
        on(self.gallery.select, self._choose_sample, None, [self.chosen], show_progress='hidden', queue=False).then(
            self._in_words(self._look), looking, seen, api_visibility='private', **_LOOKING)
        self.restore.click(None, js=_SENT, api_visibility='private').then(
            self._in_words(self._begin), [self.photos], [self.status], api_visibility='private', queue=False).then(
            self._in_words(self._restore), settings, [self.status], api_visibility='private',
            show_progress_on=self.status, **_RESTORING).then(
                self._in_words(self._look_at_all, self.status), looking, [self.status, *all_seen], api_visibility='private',
                **_LOOKING)
        on(self.stop.click, self._stop, None, [self.status], queue=False, show_progress='hidden')
        on(self.download.click, self._download, [*settings, self.chosen, self.everything], [self.status, self.files],
           concurrency_id='look', show_progress_on=self.files)

    def _in_words(self, handler: Callable[..., Any], where: Any = None) -> Callable[..., Any]:
        """Show an InputError as the sentence that it is, where such a handler tells what it did; the page stays as it was.

        So is shown what the system refuses, such as a full disk, and what should not happen, which the terminal shows too.
        """
        where = where or (self.caption if handler in (self._look, self._look_at_all) else self.status)

        @wraps(handler)
        def handled(*args: Any) -> Any:
            try:
                return handler(*args)
            except Exception as error:
                said = error if isinstance(error, InputError) else refusal_of(error) if isinstance(error, OSError) else None
                if said is None:
                    traceback.print_exc()
                return {where: str(said or f'This failed ({words_of(error)}); the terminal says where.')}
        return handled

    # ------------------------------------------------------------------------------------------------------ handlers

    def _arrive(self) -> dict[Any, Any]:
        """Weights may have come or gone since the page was made."""
        return {self.weights: gr.update(choices=self._weights())}

    def _drop(self, paths: list[str] | None, name: str | None, weights: str, point: str, samples: int | None, seed: int | None,
              knob: float, doubt: float, chosen: int, request: gr.Request) -> dict[Any, Any]:
        session = self.visitors.of(request)
        said = session.set_photos(paths or [])
        name = name if name in session.names else next(iter(session.names), None)
        dropped = {self.shown: gr.update(choices=session.names, value=name, visible=len(session.names) > 1),
                   self.files: gr.update(value=None, visible=False),
                   self.status: ' '.join(said)}
        look = self._in_words(self._look_at_all)  # the photos are there, whatever is wrong with the settings
        return {**look(name, weights, point, samples, seed, knob, doubt, chosen, request), **dropped}

    def _choose_weights(self, weights: str, name: str | None, seed: int | None, doubt: float,
                        request: gr.Request) -> dict[Any, Any]:
        if not self.machine.is_here(weights):
            return {self.status: f'{weights} is not on this machine yet; get it first.',
                    self.get: gr.update(value=f'Get {weights}', visible=True), self.restore: gr.update(interactive=False)}
        points = self._points(weights)
        return {**self._choose_point(weights, points[0][1], name, seed, doubt, request),
                self.point: gr.update(choices=points, value=points[0][1], interactive=len(points) > 1,
                                      info=self._words(weights, points[0][1])),
                self.get: gr.update(visible=False), self.restore: gr.update(interactive=True), self.status: ''}

    def _get(self, weights: str, name: str | None, seed: int | None, doubt: float, request: gr.Request) -> dict[Any, Any]:
        _, _, said = get_weights(weights)
        return {**self._choose_weights(weights, name, seed, doubt, request),
                self.weights: gr.update(choices=self._weights(), value=weights),
                self.status: ' '.join(f'{words}.' for words in said)}

    def _choose_point(self, weights: str, point: str, name: str | None, seed: int | None, doubt: float,
                      request: gr.Request) -> dict[Any, Any]:
        """Number of samples and knob as the point has them, and what is seen there."""
        named, samples, knob = bool(point) and point != PATH, None, 0
        if named:
            chosen = self.machine.load(weights)[1].operating_point(point)
            samples, knob = min(chosen.num_samples, SAMPLES.high), 0 if chosen.average else 1
        look = self._in_words(self._look_at_all)
        return {**look(name, weights, point, samples, seed, knob, doubt, 0, request),
                self.point: gr.update(info=self._words(weights, point)), self.chosen: 0, self.status: '',
                self.samples: gr.update(value=samples, interactive=True) if named else gr.update(interactive=False),
                self.knob: gr.update(value=knob, interactive=bool(point))}

    def _choose_sample(self, event: gr.SelectData) -> dict[Any, Any]:
        return {self.chosen: event.index}

    def _look(self, name: str | None, weights: str, point: str, samples: int | None, seed: int | None, knob: float,
              doubt: float, chosen: int, request: gr.Request) -> dict[Any, Any]:
        """The picture at the knob's position, from the samples that are there."""
        session = self.visitors.of(request)
        if name not in session.names:
            return {self.slider: None, self.caption: ''}
        view = session.view(name, *_wanted(weights, point, samples, seed, knob), chosen)
        return self._pictures(session, view, DOUBT.number(doubt))

    def _pictures(self, session: Session, view: View, doubt: float) -> dict[Any, Any]:
        size = shown_size(*view.photo.pixels.shape[:2])
        image, words = view.image, view.words
        if image is not None and view.std is not None and doubt > 0:
            image, full = with_doubt(image, view.std, doubt)
            words += f' Full colour: the samples differ by {255 * full:.1f} of 255 levels (standard deviation).'
        before = png(view.photo.pixels, view.photo, size)
        after = before if image is None else png(image, view.photo, size)
        return {self.slider: (session.shown('before', before), session.shown('after', after)), self.caption: words}

    def _look_at_all(self, name: str | None, weights: str, point: str, samples: int | None, seed: int | None, knob: float,
                     doubt: float, chosen: int, request: gr.Request) -> dict[Any, Any]:
        """The picture, and the samples side by side."""
        session = self.visitors.of(request)
        if name not in session.names:
            return {self.slider: None, self.caption: '', self.gallery: None}
        view = session.view(name, *_wanted(weights, point, samples, seed, knob), chosen)
        height, width = view.photo.pixels.shape[:2]
        size = shown_size(height, width, SAMPLE_SIDE**2 / 1e6)
        gallery = [(session.shown(f'sample{i}', png(sample, view.photo, size)), f'seed {seed}')
                   for i, (seed, sample) in enumerate(view.samples.items())]
        return {**self._pictures(session, view, DOUBT.number(doubt)), self.gallery: gallery or None}

    def _begin(self, paths: list[str] | None, request: gr.Request) -> dict[Any, Any]:
        session = self.visitors.of(request)
        session.begin()
        session.set_photos(paths or [])  # waits for those that are being read
        return {self.status: 'Waiting for a turn ...'}

    def _restore(self, weights: str, point: str, samples: int | None, seed: int | None, knob: float, request: gr.Request,
                 progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008  gradio finds it by its default
        session = self.visitors.of(request)

        def on_call(done: int, left: int, words: str) -> None:
            progress((done, done + left), desc=f'{words}: {left} calls left', unit='calls')

        try:
            return {self.status: session.restore(*_wanted(weights, point, samples, seed, knob), on_call)}
        finally:
            session.end()

    def _stop(self, request: gr.Request) -> dict[Any, Any]:
        is_asked = self.visitors.of(request).stop()
        return {self.status: 'Stopping after the present call ...' if is_asked else 'There is nothing to stop.'}

    def _download(self, weights: str, point: str, samples: int | None, seed: int | None, knob: float, chosen: int,
                  everything: bool, request: gr.Request) -> dict[Any, Any]:
        wanted = _wanted(weights, point, samples, seed, knob)
        files, said = self.visitors.of(request).write(*wanted, chosen, everything)
        return {self.files: gr.update(value=[str(file) for file in files], visible=True), self.status: ' '.join(said)}

    # -------------------------------------------------------------------------------------------------------- choices

    def _weights(self) -> list[tuple[str, str]]:
        return [(words, name) for name, words in self.machine.weights().items()]

    def _points(self, weights: str) -> list[tuple[str, str]]:
        named = [(name, name) for name in self.machine.points(weights)]
        path = [('the path of --tradeoff', PATH)] if self.machine.has_path(weights) else []
        return [*named, *path] or [('none', '')]

    def _words(self, weights: str, point: str) -> str:
        """What an operating point does."""
        if point == PATH:
            return 'The knob chooses steps and samples, and positions may have to be restored anew.'
        words = self.machine.points(weights).get(point)
        return f'{words[0].upper()}{words[1:]}.' if words else 'A deterministic network: one pass, no knob, no seed.'


def _wanted(weights: str, point: str, samples: Any, seed: Any, knob: Any) -> tuple[Settings, float]:
    """What is chosen; an InputError if a number that matters is none."""
    if not point:  # a deterministic network, of which none does
        return Settings(weights), KNOB.low
    samples = SAMPLES.number(samples) if point != PATH else None
    return Settings(weights, point, samples, SEED.number(seed)), KNOB.number(knob)


def build(machine: Machine, folder: Path, max_megapixels: float) -> gr.Blocks:
    """The page, ready to be launched; ``folder`` is for the visitors' files."""
    blocks = Page(Visitors(machine, folder, max_megapixels)).blocks
    return blocks.queue()


def launch(blocks: gr.Blocks, port: int, browser: bool) -> str:
    """Serve a page to this machine alone, in the background; its address.

    Raises:
        InputError: If the port was taken meanwhile.
    """
    try:
        _, address, _ = blocks.launch(
            server_name='127.0.0.1', server_port=port, share=False, inbrowser=browser, quiet=True, prevent_thread_lock=True,
            theme=_THEME, footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
            enable_monitoring=False)
    except OSError as error:
        raise InputError(f'Port {port} cannot be used ({words_of(error)}); choose another one: --port N.') from error
    return address
