"""python -m agents ROLE --config FILE.toml: one agent, until it gets SIGTERM."""

import argparse
import importlib
import sys

from agents.config import ConfigError

ROLES = {
    "netconf": ("agents.kernel.netconf", "addresses, rules and routes of a host with several networks"),
    "proxy": ("agents.kernel.proxy.agent", "MPTCP for the plain TCP connections of this host"),
    "home-agent": ("agents.kernel.mobileip.home_agent", "Mobile IPv4: bindings of mobile nodes and tunnels to them"),
    "foreign-agent": ("agents.kernel.mobileip.foreign_agent", "Mobile IPv4: care-of address for visitors on a link"),
    "mobile-node": ("agents.kernel.mobileip.mobile_node", "Mobile IPv4: a home address, registered over several networks"),
    "path-manager": ("agents.kernel.path_manager.agent", "MPTCP subflows over home and care-of addresses, dead paths included"),
    "mptcp-endpoints": ("agents.kernel.mptcp_endpoints", "keeps the kernel's MPTCP endpoints in step with the addresses"),
}
"""Role -> module with `run(path)`, what it does."""


def main(arguments: list[str] | None = None) -> int:
    """Run a role; one line on standard error and 2 when its configuration is wrong, 1 when the kernel refuses to start."""
    roles = "\n".join(f"  {name:<18}{text}" for name, (_module, text) in ROLES.items())
    parser = argparse.ArgumentParser(
        prog="python -m agents",
        description="One protocol agent in the present network namespace.",
        epilog=f"roles:\n{roles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("role", choices=ROLES, metavar="ROLE", help="what the agent does (see below)")
    parser.add_argument("--config", required=True, metavar="FILE.toml", help="its configuration")
    options = parser.parse_args(arguments)
    try:
        importlib.import_module(ROLES[options.role][0]).run(options.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.role}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
