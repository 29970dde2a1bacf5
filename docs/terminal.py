#!/usr/bin/env python3
"""Runs a command in a terminal of 100 columns, and draws what that shows at the end.

    docs/terminal.py docs/failed-deploy.svg cargo xtask deploy local

It needs tmux, and rich from PyPI."""

import io
import shlex
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.text import Text

COLUMNS = 100
FORMAT = """<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#292929"/>
<g transform="translate(12, 0)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def shown_by(command):
    """What is on the screen once the command has ended, with colours, and lines that the screen folded in one piece."""
    with tempfile.TemporaryDirectory() as folder:
        tmux = ["tmux", "-f", "/dev/null", "-S", f"{folder}/socket"]
        line = f"{command}; tmux wait-for -S done; sleep 60"
        subprocess.run(tmux + ["new-session", "-d", "-x", str(COLUMNS), "-y", "60", line], check=True)
        subprocess.run(tmux + ["wait-for", "done"], check=True)
        screen = subprocess.run(tmux + ["capture-pane", "-peJ"], check=True, capture_output=True, text=True)
        subprocess.run(tmux + ["kill-server"], check=True)
    return screen.stdout.rstrip()


def draw(text, file):
    console = Console(record=True, width=COLUMNS + 2, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"\n{text}\n"))
    console.save_svg(file, code_format=FORMAT, unique_id="terminal")


if __name__ == "__main__":
    file, *command = sys.argv[1:]
    command = shlex.join(command)
    draw(f"\x1b[1m$ {command}\x1b[0m\n{shown_by(command)}", file)
