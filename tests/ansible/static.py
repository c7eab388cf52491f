"""Lints, both versions of Ansible, and every variable described."""

import yaml

from tools import CURRENT, OLDEST, PLAYBOOKS, ROLES, command, tail


def run(report):
    code, said = command(CURRENT / "ansible-lint", "--offline")
    report.check("ansible-lint, profile production", code == 0 and "it passed" in said, said.splitlines()[-1] if code == 0 else tail(said))
    code, said = command(CURRENT / "yamllint", "--strict", ".")
    report.check("yamllint", code == 0, "" if code == 0 else tail(said))
    for tools in (OLDEST, CURRENT):
        version = command(tools / "ansible", "--version")[1].splitlines()[0]
        for playbook in ("site.yml", "upgrade.yml", "remove.yml"):
            code, said = command(tools / "ansible-playbook", "-i", "inventory.example", "--syntax-check", playbook)
            report.check(f"{playbook} is understood by {version}", code == 0 and "WARN" not in said, "" if code == 0 else tail(said))
    for role in ROLES:
        described(report, role)


def described(report, role):
    """Defaults, argument specs and the role's README name the same variables, and the first two the same values."""
    folder = PLAYBOOKS / "roles" / role
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text())
    options = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    readme = (folder / "README.md").read_text()
    report.check(f"{role}: every variable is described", set(defaults) == set(options), sorted(set(defaults) ^ set(options)) or len(options))
    differ = [name for name, option in options.items() if "default" in option and option["default"] != defaults[name]]
    report.check(f"{role}: with the default that it has", not differ, differ or "")
    missing = [name for name in options if f"`{name}`" not in readme]
    report.check(f"{role}: and in its README", not missing, missing or "")
