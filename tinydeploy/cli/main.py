"""Turn a command line into exit codes and output; commands are imported when they are called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

# Command -> sentence. Each lives in tinydeploy/cli/<command>.py as `command`.
COMMANDS = {
    "deploy": "Take a model to firmware, run it and prove it bit-exact.",
    "inspect": "Show a model's operators, shapes and quantisation.",
    "quantize": "Turn a float model into integers and say what that costs.",
    "plan": "Plan the memory of a model and draw it.",
    "generate": "Write the C of a model.",
    "export": "Write a model as a library for CMake, Arduino, Zephyr and others.",
    "build": "Build a deployment folder again.",
    "flash": "Write a deployment folder's firmware to its board.",
    "verify": "Run a deployment folder and compare every output bit.",
    "profile": "Count what each node of a deployment folder costs.",
    "tune": "Find the fastest kernel of each node by measuring.",
    "check": "Compare models with a budget: size, exactness, speed; for CI.",
    "bench": "Tabulate what models cost on targets.",
    "lut": "Tabulate a nonlinear function for integer code or hardware.",
    "targets": "List the boards and machines.",
    "ops": "List the operators and what they accept.",
    "ports": "List the serial ports of this computer and the boards behind them.",
    "doctor": "Check what is installed of what a target needs.",
}


class _Lazy(click.Group):
    """List all commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tinydeploy.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tinydeploy")
def cli() -> None:
    """Take a trained network to verified firmware on a microcontroller.

    Start with: tinydeploy deploy model.tflite --target mps2-an386
    """


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 interrupted, 2-7 as errors.py defines."""
    from tinydeploy.errors import TinydeployError

    given = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = cli.main(given, standalone_mode=False)
    except click.exceptions.Abort:
        _exit(1, "stopped")
    except click.ClickException as error:
        error.show()
        _exit(error.exit_code)
    except TinydeployError as error:
        if "--debug" in given:
            raise
        _exit(error.exit_code, f"error: {error}")
    except KeyboardInterrupt:
        _exit(1, "stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(1)
    except Exception as error:
        if "--debug" in given:
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        _exit(
            1, f"error: a fault of tinydeploy itself\n{what}\n--debug shows where; please report it"
        )
    else:
        _exit(code if isinstance(code, int) else 0)


def _exit(code: int, message: str = "") -> None:
    if message:
        click.echo(message, err=True)
    sys.exit(code)
