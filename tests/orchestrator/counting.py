"""What something costs in steps and requests, which no load of the machine changes."""

import sys
from collections import Counter

from orchestrator.store import Store


def steps_in(modules, call):
    """How many instructions of Python run in the functions of these modules while ``call`` runs."""
    files, found = {module.__file__ for module in modules}, [0]

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            found[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found[0]


class CountedStore(Store):
    """A store that counts the requests which an object store would get, and the bytes that are written."""

    def __init__(self, uri):
        super().__init__(uri)
        self.requests, self.bytes_written = Counter(), 0

    def names(self, path):
        self.requests["list"] += 1
        return super().names(path)

    def _sizes(self, path):
        self.requests["list"] += 1
        return super()._sizes(path)

    def exists(self, path):
        self.requests["look"] += 1
        return super().exists(path)

    def read_bytes(self, path):
        self.requests["read"] += 1
        return super().read_bytes(path)

    def write_bytes(self, path, content, **options):
        self.requests["write"] += 1
        self.bytes_written += len(content)
        super().write_bytes(path, content, **options)

    def create_document(self, path, document, **options):
        self.requests["write"] += 1
        return super().create_document(path, document, **options)

    def remove(self, path):
        self.requests["remove"] += 1
        super().remove(path)
