"""An engine without processes."""

from lightning_adv.studies.engines.base import Engine


class InThisProcess(Engine):
    """Runs a cell when it is submitted; ``submitted`` has the folders."""

    slots = 1

    def __init__(self):
        self.submitted, self.ended = [], []

    def open(self, work, *, workers, threads):
        self.work = work

    def submit(self, folder):
        self.submitted.append(folder)
        try:
            self.work(folder)
            self.ended = [(folder, None)]
        except Exception as error:
            self.ended = [(folder, error)]

    def wait(self, seconds):
        return self.ended

    def close(self):
        self.closed = True
