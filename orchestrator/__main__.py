"""``python -m orchestrator status|sync|gc|export``."""

from orchestrator.cli import orchestrator_main

if __name__ == "__main__":
    orchestrator_main()
