"""How far a long command has come: a bar on a terminal, else a line a step."""

from django.core.management.base import OutputWrapper

WIDTH = 40


class Progress:
    """`total` is what was counted at the start; fewer or more may turn out to be done."""

    def __init__(self, output: OutputWrapper, total: int, verb: str) -> None:
        self.output = output
        self.total = total
        self.verb = verb
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count
        counts = f"{self.done} of {self.total} {self.verb}"
        if self.output.isatty():
            full = WIDTH * min(self.done, self.total) // self.total
            self.output.write(f"\r[{'#' * full}{'.' * (WIDTH - full)}] {counts}", ending="")
            self.output.flush()
        else:
            self.output.write(counts)

    def end(self) -> None:
        if self.output.isatty():
            self.output.write("")
