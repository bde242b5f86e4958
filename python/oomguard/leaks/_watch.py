"""Two looks, and what became more between them."""

from __future__ import annotations

import gc
from types import TracebackType

from oomguard import _core
from oomguard.leaks._attributes import Study
from oomguard.leaks._census import census
from oomguard.leaks._examine import WORTH, Examination
from oomguard.leaks._report import Cause, Report, mb


class Watch:
    """What :func:`watch` returns. ``report`` is there when the block has ended, in whatever way."""

    def __init__(self, study: Study | None = None) -> None:
        self._study = study
        self._report: Report | None = None

    @property
    def report(self) -> Report:
        """What the block left behind.

        Raises:
            RuntimeError: The block has not ended.
        """
        if self._report is None:
            raise RuntimeError("the watch has not ended: its report is there after the `with` block")
        return self._report

    def __enter__(self) -> Watch:
        gc.collect()
        _core.trim()
        self._before = census()
        self._resident = _core.resident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run = Examination()
        run.retention()
        run.cycles()
        self._living(run)
        if self._study is not None:
            run.attributes(self._study)
        run.untouched()
        self._report = run.report()

    def _living(self, run: Examination) -> None:
        with run.step("count living objects"):
            grown = census().more_than(self._before, WORTH)
        if not grown:
            return
        size = sum(more for _, _, more in grown)
        after = run.steps[-1].after
        stays = (
            "" if after is None or self._resident is None else f"; the process is {mb(after - self._resident)} larger"
        )
        named = ", ".join(f"{kind} ({number:+d} objects, {mb(more)})" for kind, number, more in grown[:4])
        run.causes.append(Cause(
            "living", size,
            f"{mb(size)} more are held by living objects than before: {named}{stays}",
            "find who keeps them: gc.get_referrers(), a list that only grows, a cache, a callback",
            {"types": [{"name": kind, "more": number, "bytes": more} for kind, number, more in grown]},
        ))  # fmt: skip


def watch(study: object = None) -> Watch:
    """Watches a block: what it freed and what it left behind, by type.

    ::

        with oomguard.leaks.watch() as watched:
            for split in splits[:3]:
                train(split)
        print(watched.report)

    Warm up before (one split), or the block's first imports and caches count as left behind. Collects, trims and counts
    all objects at both ends: 0.5 s each with torch loaded. An exception passes through; the report is there all the
    same.
    """
    return Watch(study)  # type: ignore[arg-type]
