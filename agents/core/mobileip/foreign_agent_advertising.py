"""Advertisements of a foreign agent: when, with which number, and whom they answer (RFC 5944 section 2.3)."""

from collections import deque
from dataclasses import dataclass, field

from agents.core.mobileip.actions import SendIcmp
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig, LinkConfig
from agents.wire.mobileip import advertisement
from agents.wire.mobileip.values import Advertisement, MobilityAgent

ALL_SYSTEMS = "224.0.0.1"
FIRST_SEQUENCE = 0
SEQUENCE_AFTER_ROLLOVER = 256
CHALLENGE_OCTETS = 16


@dataclass(slots=True)
class Link:
    """One link with visitors."""

    config: LinkConfig
    sequence: int = FIRST_SEQUENCE
    """Of the next advertisement."""
    due_s: float = 0.0
    answered_s: float = float("-inf")
    """When a solicitation was last answered."""
    challenges: deque[bytes] = field(default_factory=deque)
    """The latest ones, the newest last."""


def advertise(config: ForeignAgentConfig, link: Link, busy: bool, challenge: bytes | None) -> SendIcmp:
    """The next advertisement of a link."""
    agent = MobilityAgent(
        link.sequence, config.lifetime_max_s, (config.care_of_address,), config.registration_required, busy, foreign_agent=True,
        gre=config.gre, reverse_tunnel=config.reverse_tunnel,
    )  # fmt: skip
    link.sequence = link.sequence + 1 if link.sequence < 0xFFFF else SEQUENCE_AFTER_ROLLOVER
    if challenge is not None:
        link.challenges.append(challenge)
        while len(link.challenges) > config.challenges_kept:
            link.challenges.popleft()
    routers = ((link.config.address, 0),)
    said = Advertisement(config.advertisement_lifetime_s, routers, 0, agent, (link.config.prefix_length,), challenge)
    return SendIcmp(advertisement.encode(said), ALL_SYSTEMS, link.config.interface)


def may_answer(config: ForeignAgentConfig, link: Link, now_s: float) -> bool:
    """Whether a solicitation gets an answer now; others have just been answered for all."""
    return now_s >= link.answered_s + 1.0 / config.solicitations_per_s
