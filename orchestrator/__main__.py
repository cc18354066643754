"""``python -m orchestrator status|sync|gc``."""

from orchestrator.cli import orchestrator_main

if __name__ == "__main__":
    orchestrator_main()
