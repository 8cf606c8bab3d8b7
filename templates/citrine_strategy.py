"""labgrid strategy of a Citrine bundle: off, uboot, hypervisor, partitions.

What differs between boards and profiles is in the environment file that `cargo xtask labgrid` writes beside this one.
"""

import enum

import attr
from labgrid import target_factory
from labgrid.strategy import Strategy, StrategyError, never_retry


class Status(enum.Enum):
    """Each state is reached through those before it."""

    unknown = 0
    off = 1
    uboot = 2
    hypervisor = 3
    partitions = 4


@target_factory.reg_driver
@attr.s(eq=False)
class CitrineStrategy(Strategy):
    """Brings a board from power-on to the prompts of all partitions.

    Args:
        hypervisor (str): the SerialDriver of the hypervisor's console
        ready (str): what the hypervisor says when every partition can run
        shells (list): the ShellDrivers of the partitions
        report_timeout (int): seconds for the hypervisor's report
    """

    bindings = {"power": "PowerProtocol", "uboot": "UBootDriver"}

    hypervisor = attr.ib(validator=attr.validators.instance_of(str))
    ready = attr.ib(validator=attr.validators.instance_of(str))
    shells = attr.ib(validator=attr.validators.instance_of(list))
    report_timeout = attr.ib(default=120, validator=attr.validators.instance_of(int))
    status = attr.ib(default=Status.unknown)

    @never_retry
    def transition(self, status):
        """Goes to `status`, by its name or as a Status; back only by way of off."""
        if not isinstance(status, Status):
            status = Status[status]
        if status == Status.unknown:
            raise StrategyError("unknown is no state to go to")
        if status == Status.off or status.value < self.status.value or self.status == Status.unknown:
            self._off()
        steps = {
            Status.uboot: self._uboot,
            Status.hypervisor: self._hypervisor,
            Status.partitions: self._partitions,
        }
        for state, step in steps.items():
            if self.status.value < state.value <= status.value:
                step()
                self.status = state

    def _off(self):
        self.target.deactivate_all_drivers()
        self.target.activate(self.power)
        self.power.off()
        self.status = Status.off

    def _uboot(self):
        # All of them, before anything is printed: no line of the report is missed then.
        self.target.activate(self.uboot.console)
        for driver in self._consoles():
            self.target.activate(driver)
        self.power.on()
        self.target.activate(self.uboot)

    def _hypervisor(self):
        self.uboot.boot()
        # U-Boot's prompt comes again only when a script was not fetched, or has given up.
        self._expect(self.uboot.console, self.uboot.bootstring, self.uboot.boot_timeout, [self.uboot.prompt])
        self._expect(self._console(self.hypervisor), self.ready, self.report_timeout, [])

    def _partitions(self):
        for name in self.shells:
            shell = self.target.get_driver("ShellDriver", name=name)
            # labgrid's own `run` needs an `echo -n`, which this busybox has not.
            shell.console.sendline('run() { printf %s "$MARKER"; sh -c "$@"; echo "$MARKER $?"; }')
            shell.console.expect(shell.prompt)
            # The kernel would talk into answers.
            shell.run_check("dmesg -n 1")

    def _console(self, name):
        return self.target.get_driver("SerialDriver", name=name, activate=False)

    def _consoles(self):
        shells = [self.target.get_driver("ShellDriver", name=name, activate=False) for name in self.shells]
        return [self._console(self.hypervisor)] + [shell.console for shell in shells]

    @staticmethod
    def _expect(console, text, timeout, failures):
        failures = ["nothing was started", "must RESET the board", "citrine: FAILED", "panicked:"] + failures
        index, before, _, _ = console.expect([text] + failures, timeout=timeout)
        if index:
            raise StrategyError(f"{failures[index - 1]!r} came instead of {text!r}, after {before[-400:]!r}")
