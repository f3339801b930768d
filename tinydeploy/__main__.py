"""Run the command line with `python -m tinydeploy`."""

from tinydeploy.cli.main import run

if __name__ == "__main__":
    run()
