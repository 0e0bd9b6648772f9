"""How far a long command has come: a bar on a terminal, else a line a step."""

from django.core.management.base import OutputWrapper

WIDTH = 40


class Progress:
    """`total` is what was counted at the start, None where nobody could; fewer or more may turn out to be done."""

    def __init__(self, output: OutputWrapper, total: int | None, verb: str) -> None:
        self.output = output
        self.total = total
        self.verb = verb
        self.done = 0

    @property
    def counts(self) -> str:
        return f"{self.done}{'' if self.total is None else f' of {self.total}'} {self.verb}"

    def add(self, count: int) -> None:
        self.done += count
        if self.output.isatty():
            self.output.write(f"\r{self.bar()}{self.counts}", ending="")
            self.output.flush()
        else:
            self.output.write(self.counts)

    def bar(self) -> str:
        if self.total is None:
            return ""
        full = WIDTH * min(self.done, self.total) // self.total
        return f"[{'#' * full}{'.' * (WIDTH - full)}] "

    def end(self) -> None:
        if self.output.isatty():
            self.output.write("")
