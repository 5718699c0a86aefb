"""The sessions of all open tabs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import gradio as gr

from .machine import Machine
from .session import Session


class Visitors:
    """The sessions of all open tabs, by gradio's own name for each."""

    def __init__(self, machine: Machine, folder: Path, max_megapixels: float) -> None:
        self.machine = machine
        self.folder = folder
        self.max_megapixels = max_megapixels
        self._sessions: dict[str, Session] = {}

    def of(self, request: gr.Request) -> Session:
        """The session of the tab that asks."""
        name = str(request.session_hash)
        if name not in self._sessions:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            self._sessions[name] = Session(self.machine, folder, self.max_megapixels)
        return self._sessions[name]

    def forget(self, request: gr.Request) -> None:
        """The tab was closed: what runs for it stops, and its files go."""
        session = self._sessions.pop(str(request.session_hash), None)
        if session is not None:
            session.stop()
            shutil.rmtree(session.folder, ignore_errors=True)
