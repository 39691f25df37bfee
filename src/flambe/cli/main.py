"""The entry point: parses the command line, runs the command and returns its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from flambe.cli.arguments import COMMANDS, command_parser
from flambe.cli.command import Command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    command, parser = COMMANDS[name], command_parser(name)
    if len(arguments) > 1 and name == "run" and not os.path.exists(arguments[0]):
        from flambe.errors import did_you_mean

        if hint := did_you_mean(arguments[0], COMMANDS):
            parser.error(f"unknown command {arguments[0]!r}: {hint}")
    if not arguments and command.needs_arguments:
        parser.print_help()
        return 2
    # Arguments of any number, such as filters, may stand between options.
    is_intermixed = any(action.nargs == "*" for action in parser._actions)
    parsed = (parser.parse_intermixed_args if is_intermixed else parser.parse_args)(arguments)
    # Imported only now: --help stays quick.
    from flambe._files import guard_umask
    from flambe._hints import use_command
    from flambe.cli import exit_handling

    guard_umask()
    use_command()
    return exit_handling.run_guarded(lambda: _call(command, parsed), verbose=parsed.verbose)


def _call(command: Command, parsed: argparse.Namespace) -> int:
    """Import the module of a command, and call its function with its options."""
    function, options_type = command.load()
    names = {field.name for field in fields(options_type)}
    options = {name: value for name, value in vars(parsed).items() if name in names}
    return function(options_type(**options))


def run() -> None:
    """Exit with what :func:`main` returns."""
    sys.exit(main())


# -- flambe completion -------------------------------------------------------------------------

# shtab completes the place of a subcommand with the names of commands only. The first argument of
# flambe may also be a file: bash reads that from this variable, and zsh gets one more call.
# Shown by test_the_first_argument_is_a_command_or_a_file.
_BASH_FILES = "\n_shtab_flambe_pos_0_COMPGEN=_shtab_compgen_files\n"
_ZSH_COMMANDS = "_describe 'flambe commands' _commands"


@dataclass(frozen=True)
class CompletionOptions:
    """The options of ``flambe completion``."""

    shell: str


def print_completion(options: CompletionOptions) -> int:
    """Print the script that completes commands, options and files in a shell."""
    import shtab

    names = [name for name in COMMANDS if name != "run"]
    parser = command_parser("run")
    # The file and the names of the commands stand in the same place; overrides have no names that
    # a shell could complete.
    for name in ("config", "overrides"):
        parser._actions.remove(next(each for each in parser._actions if each.dest == name))
    commands = parser.add_subparsers(metavar="CONFIG")
    parsers = [parser]
    for name in names:
        subparser = command_parser(name)
        summary = str(subparser.description).partition(". ")[0].rstrip(".")
        parsers.append(commands.add_parser(name, help=summary, parents=[subparser], add_help=False))
    for action in (action for each in parsers for action in each._actions):
        if action.metavar in ("CLUSTER", "FILE") or action.dest == "config":
            _complete(action, {"bash": "_shtab_compgen_files", "zsh": "_files"})
        elif action.metavar in ("FOLDER", "TO"):
            _complete(action, {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"})
    preamble = _BASH_FILES if options.shell == "bash" else ""
    script = shtab.complete(parser, options.shell, preamble=preamble)
    print(script.replace(_ZSH_COMMANDS, f"{_ZSH_COMMANDS}; _files"))
    return 0


def _complete(action: argparse.Action, functions: dict[str, str]) -> None:
    """Set the functions that complete an argument: shtab reads this attribute."""
    setattr(action, "complete", functions)  # noqa: B010 (argparse does not declare it)
