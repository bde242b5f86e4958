"""In a notebook: a real kernel, driven as Jupyter drives it."""

from __future__ import annotations

import pytest
from absence import absent

try:
    import nbclient
    import nbformat
except ImportError as error:
    absent("nbclient", str(error))


def outputs(*cells: str) -> list[list[object]]:
    """Runs the cells in one kernel; what each of them put out."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    try:
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    except nbclient.exceptions.CellExecutionError as error:
        raise AssertionError(str(error)) from None
    except Exception as error:
        if "kernel" in str(error).lower():
            absent("nbclient", str(error))
        raise
    return [cell.outputs for cell in notebook.cells]


def text(cell: list[object]) -> str:
    return "".join(str(part.get("text", "")) for part in cell)


def test_a_guard_interrupts_a_cell_and_the_kernel_lives_on():
    guarded = """
import time, oomguard
try:
    with oomguard.guard(interrupt=True, critical="1024T", warn="1024T", context="cell"):
        time.sleep(60)
except MemoryError as error:
    print("gave way:", error)
"""
    first, second, third = outputs(guarded, guarded, "print('alive')")
    for cell in (first, second):
        assert text(cell).count("gave way: stop to give memory back [cell]: reserve") == 1
    assert text(third) == "alive\n"


def test_the_live_line_stands_below_its_cell_and_goes_on():
    first, second, _ = outputs(
        "import oomguard; live = oomguard.monitor(every=0.05)",
        "import time; data = bytearray(1 << 20); end = time.monotonic() + 20",
        "live.stop(); print(repr(live))",
    )
    shown = [part for part in first if part.output_type in ("display_data", "update_display_data")]
    assert len(shown) == 1, "one line, written over"
    assert shown[0].data["text/plain"].startswith("RAM ")
    assert second == []


def test_a_callback_that_a_cell_defines_again_is_there_once():
    cell = "import oomguard\n@oomguard.on_pressure\ndef drop():\n    print('dropped')\n"
    assert text(outputs(cell, cell, "_ = oomguard.relieve()")[2]) == "dropped\n"


@pytest.mark.parametrize("cell", ["oomguard.monitor", "oomguard.guard()"])
def test_what_a_cell_ends_with_is_readable(cell):
    shown = outputs(f"import oomguard\n{cell}")[0]
    assert "oomguard" in str(shown) or "function" in str(shown)
