"""Tables as lines of cells: for a page, and for the terminal."""

from rich.console import Console
from rich.table import Table

_FILE_WIDTH = 240
Grid = list[list[str]]
"""Lines of cells; the first has the titles."""


def print_grid(grid: Grid) -> None:
    """Print one."""
    titles, *lines = grid
    table = Table(*titles, box=None)
    for line in lines:
        table.add_row(*line)
    console = Console()
    if not console.is_terminal:  # a file has no width, and 80 columns would break every cell
        console = Console(width=_FILE_WIDTH)
    console.print(table)
