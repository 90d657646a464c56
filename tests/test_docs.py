"""What the documents say is so: generated tables, commands, files."""

from __future__ import annotations

import re
import shlex
import sys
import types

import click

from conftest import ROOT
from slimbench.cli import main
from slimbench.reports import cards

README = (ROOT / "README.md").read_text()
with click.Context(main) as _context:
    COMMANDS = {name: main.get_command(_context, name) for name in main.list_commands(_context)}  # plug-ins' too


def test_the_table_of_methods_is_the_cards():
    """`bench check --write README.md` has been run, and for docs/methods.md."""
    for text in (README, (ROOT / "docs/methods.md").read_text()):
        assert cards.written_into(text) == text


def test_every_command_is_in_the_readme_and_every_one_there_exists():
    """With options that it has."""
    commands = COMMANDS
    lines = [line.split("#")[0] for line in README.splitlines() if line.startswith("bench ")]
    shown = [shlex.split(line) for line in lines]
    assert {words[1] for words in shown} <= set(commands)
    assert set(commands) - {words[1] for words in shown} <= {"download", "lock"}
    for words in shown:
        known = {option for p in commands[words[1]].params for option in p.opts}
        used = {word for word in words if word.startswith("--")}
        assert used <= known, words


def test_every_command_and_option_has_help():
    """Nobody has to read the source."""
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_links_between_documents_resolve():
    """Relative ones."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_example_method_in_contributing_works(store, monkeypatch):
    """It is run as a plug-in is, and meets its budget."""
    from conftest import fakes
    from slimbench.compress import compress
    from slimbench.core import Budget, Cell
    from slimbench.methods.dense import Dense

    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    example = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)  # where dataclasses looks a class's module up
    exec(compile(code, "CONTRIBUTING.md", "exec"), example.__dict__)
    dense = Cell(fakes.Stripes(), Dense(), Budget(1.0), 0)
    compress(dense, store)
    record = compress(Cell(fakes.Stripes(), example.Halved(), Budget(0.5, epochs=1), 0, reference=dense), store)
    assert (record.status, record.reason) == ("ok", "")


def test_the_two_commands_exist():
    """In the Makefile, and CI runs the second."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^bench: env", makefile, re.MULTILINE)
    assert re.search(r"^test: env", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci/run").read_text()
