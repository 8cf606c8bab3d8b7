"""Brings the target of a labgrid environment to its prompts, and asks every partition something.

    python prompts.py ENVIRONMENT.yaml
"""

import sys

from labgrid import Environment
from labgrid.logging import StepLogger, basicConfig

basicConfig()
StepLogger.start()
target = Environment(sys.argv[1]).get_target()
strategy = target.get_driver("CitrineStrategy", activate=False)
for state in ["uboot", "hypervisor", "partitions"]:
    strategy.transition(state)
    print(f"state {strategy.status.name}", flush=True)
for name in strategy.shells:
    shell = target.get_driver("ShellDriver", name=name)
    for command in ["echo $((6*7))x", "hostname", "nproc"]:
        print(f"{name}: {command}: {shell.run_check(command)}", flush=True)
strategy.transition("off")
print(f"state {strategy.status.name}", flush=True)
