"""The sending half of the TCP model: scoreboard, loss recovery, congestion window, retransmission timer.

RFC 5681, RFC 6298, RFC 6675 in spirit: with SACK a hole is lost when three segments' worth above it arrived, without SACK
after three duplicate acknowledgements, one hole for each round trip (RFC 6582). All numbers are relative, the SYN is 0.
"""

from tests.proxy.ranges import Ranges

DUPLICATES = 3
RTO_FIRST, RTO_LAST = 1.0, 60.0


class Sender:
    """What was sent and what of it is known to have arrived."""

    def __init__(self, mss: int, sack: bool, min_rto: float) -> None:
        self.mss = mss
        self.sack = sack
        self.min_rto = min_rto
        self.data = bytearray()
        self.closing = False
        """The application writes no more: a FIN follows the data."""
        self.una = 0
        self.next = 0
        """SND.NXT, which here never goes back."""
        self.edge = 0
        """The right edge of the peer's window."""
        self.window = 0
        """The peer's last window."""
        self.widest = 0
        """The widest window that the peer has told."""
        self.sacked = Ranges()
        self.cwnd = 10 * mss
        self.ssthresh = 1 << 30
        self.duplicates = 0
        self.recovery_until: int | None = None
        """In recovery until this is acknowledged."""
        self.lost_until = 0
        """Everything below that is not known to have arrived counts as lost."""
        self.repeated_until = 0
        """Lost bytes below this were sent again."""
        self.srtt: float | None = None
        self.rttvar = 0.0
        self.backoff = 0
        self.rto = RTO_FIRST

    @property
    def end(self) -> int:
        """The end of what is to be sent, FIN included."""
        return 1 + len(self.data) + int(self.closing)

    @property
    def fin_sent(self) -> bool:
        """Whether the FIN was sent."""
        return self.closing and self.next == self.end

    @property
    def fin_acked(self) -> bool:
        """Whether the FIN was acknowledged."""
        return self.closing and self.una == self.end

    @property
    def outstanding(self) -> int:
        """Sequence numbers in flight."""
        return self.next - self.una

    def timeout(self) -> float:
        """The retransmission timeout with its back-off."""
        return float(min(RTO_LAST, self.rto * (1 << min(self.backoff, 10))))

    def measured(self, rtt: float) -> None:
        """A measured round-trip time (RFC 6298 section 2)."""
        if self.srtt is None:
            self.srtt, self.rttvar = rtt, rtt / 2
        else:
            self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.srtt - rtt)
            self.srtt = 0.875 * self.srtt + 0.125 * rtt
        self.rto = max(self.min_rto, self.srtt + max(0.001, 4 * self.rttvar))

    def acknowledged(self, ack: int, blocks: list[tuple[int, int]], duplicate: bool) -> int:
        """An acknowledgement; returns how many bytes are newly acknowledged cumulatively."""
        news = 0
        for left, right in blocks:
            if right > ack:
                news += self.sacked.add(max(left, ack), right)
        gained = ack - self.una
        if gained > 0:
            self.una = ack
            self.sacked.cut_below(ack)
            self.repeated_until = max(self.repeated_until, ack)
            self.backoff = 0
            self._advanced(ack, gained)
        elif self.outstanding and (news or (duplicate and not self.sack)):
            self.duplicates += 1
        if self.sack:
            self._find_lost()
        elif self.duplicates == DUPLICATES and self.recovery_until is None:
            self._recover(self.una + min(self.mss, self.outstanding))
        return max(0, gained)

    def _advanced(self, ack: int, gained: int) -> None:
        if self.recovery_until is not None and ack >= self.recovery_until:
            self.recovery_until = None
            self.cwnd = max(self.cwnd, 2 * self.mss) if self.cwnd < self.ssthresh else self.ssthresh
            self.duplicates = 0
        elif self.recovery_until is not None:
            if not self.sack:
                self.duplicates = 0
                if self.lost_until < self.recovery_until:
                    self.lost_until = max(self.lost_until, min(self.next, ack + self.mss))
            if self.cwnd < self.ssthresh:
                self.cwnd += min(gained, self.mss)
        else:
            self.duplicates = 0
            if self.cwnd < self.ssthresh:
                self.cwnd += min(gained, 2 * self.mss)
            else:
                self.cwnd += max(1, self.mss * min(gained, self.mss) // self.cwnd)

    def _find_lost(self) -> None:
        if not self.sacked:
            return
        need, above = DUPLICATES * self.mss, 0
        for left, right in reversed(list(self.sacked)):
            above += right - left
            if above >= need or self.duplicates >= DUPLICATES:
                if left > self.lost_until:
                    if self.recovery_until is None:
                        self._recover(left)
                    self.lost_until = left
                break

    def _recover(self, lost_until: int) -> None:
        self.recovery_until = self.next
        self.ssthresh = max(self.outstanding // 2, 2 * self.mss)
        self.cwnd = self.ssthresh
        self.lost_until = lost_until
        self.repeated_until = self.una

    def timed_out(self) -> None:
        """The retransmission timer ran out: all that is not known to have arrived is lost (RFC 5681 section 3.1)."""
        if self.backoff == 0:
            self.ssthresh = max(self.outstanding // 2, 2 * self.mss)
        self.backoff += 1
        self.cwnd = self.mss
        self.recovery_until = self.lost_until = self.next
        self.repeated_until = self.una
        self.duplicates = 0
        if self.sacked and self.sacked.covers(self.una, self.una + 1):
            self.sacked.clear()

    def lost(self) -> tuple[int, int] | None:
        """The first lost range that was not sent again."""
        begin = max(self.una, self.repeated_until)
        if begin >= self.lost_until:
            return None
        gaps = self.sacked.gaps(begin, self.lost_until)
        return gaps[0] if gaps else None

    def pipe(self) -> int:
        """An estimate of the bytes in the network (RFC 6675 section 4)."""
        begin = max(self.una, self.repeated_until)
        gone = self.sacked.total if self.sacked else 0
        if begin < self.lost_until:
            gone += sum(right - left for left, right in self.sacked.gaps(begin, self.lost_until))
        if not self.sack:
            gone += self.duplicates * self.mss
        return max(0, self.outstanding - gone)
