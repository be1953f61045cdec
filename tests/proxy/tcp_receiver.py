"""The receiving half of the TCP model: reassembly, window, what arrived twice must be the same twice (RFC 9293, RFC 2018)."""

from tests.proxy.ranges import Ranges


class Receiver:
    """Bytes in order, bytes out of order, and the window that was told. Numbers are relative to the first SYN, which is 0."""

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer
        self.data = bytearray()
        """The stream; holes are zero."""
        self.next = 0
        """RCV.NXT."""
        self.edge = 0
        """The highest sequence number that a told window allows, exclusive."""
        self.fin_at: int | None = None
        self.consumed = 0
        """Bytes that the application has taken."""
        self.reading = True
        """Whether the application takes bytes as they come."""
        self.beyond = Ranges()
        """What lies above a hole."""
        self.recent: list[int] = []
        """Where the last segments beyond a hole began, the newest first: the order of the SACK blocks."""

    @property
    def bytes_in_order(self) -> int:
        """Bytes of the stream that are complete."""
        fin = int(self.fin_at is not None and self.next > self.fin_at)
        return max(0, self.next - 1 - fin)

    def take(self) -> None:
        """The application reads what there is."""
        self.consumed = self.bytes_in_order

    def free(self) -> int:
        """Room in the buffer."""
        return max(0, self.buffer - (self.bytes_in_order - self.consumed))

    def window_field(self, scale: int, mss: int) -> int:
        """The window to tell: never a smaller right edge than before, and no steps that are silly (RFC 9293 section 3.8.6)."""
        told = max(0, self.edge - self.next)
        free = self.free()
        if told < free < told + min(mss, self.buffer // 2):
            free = told
        field = max(free, told) >> scale
        if self.next + (field << scale) < self.edge:
            field += 1
        field = min(field, 0xFFFF)
        self.edge = max(self.edge, self.next + (field << scale))
        return field

    def store(self, seq: int, payload: bytes | memoryview, fin: bool) -> list[str]:
        """Take a segment's payload, and return what is wrong with it. `seq` may lie below RCV.NXT."""
        wrong = []
        begin, end = seq - 1, seq - 1 + len(payload)
        if fin:
            if self.fin_at is not None and self.fin_at != end + 1:
                wrong.append(f"FIN at {end + 1}, and before at {self.fin_at}")
            elif end < len(self.data):
                wrong.append(f"FIN at {end + 1}, but {len(self.data)} bytes were received")
            else:
                self.fin_at = end + 1
        if self.fin_at is not None and end > self.fin_at - 1:
            wrong.append(f"data up to {end}, but the FIN was at {self.fin_at}")
            return wrong
        if begin < 0:
            return [*wrong, f"data at {begin}, before the stream"]
        if payload:
            if len(self.data) < end:
                self.data += bytes(end - len(self.data))
            known = [(0, self.next - 1)] if begin < self.next - 1 else []
            known += [(left - 1, right - 1) for left, right in self.beyond.within(seq, seq + len(payload))]
            for left, right in known:
                left, right = max(left, begin), min(right, end)
                if left < right and self.data[left:right] != payload[left - begin : right - begin]:
                    wrong.append(f"other bytes for [{left}, {right}) than before")
                    return wrong
            self.data[begin:end] = payload
            if end >= self.next:
                self.beyond.add(max(seq, self.next), seq + len(payload))
        if self.beyond:
            left, right = next(iter(self.beyond))
            if left <= self.next:
                self.next = right
                self.beyond.cut_below(self.next)
                self.recent = [at for at in self.recent if at >= self.next]
            elif end >= self.next and payload:
                if seq in self.recent:
                    self.recent.remove(seq)
                self.recent.insert(0, seq)
                del self.recent[8:]
        if self.fin_at is not None and self.next == self.fin_at:
            self.next += 1
        if self.reading:
            self.take()
        return wrong

    def sack_blocks(self, most: int) -> list[tuple[int, int]]:
        """RFC 2018 section 4: the block of the newest segment first."""
        if not self.beyond or most <= 0:
            return []
        blocks: list[tuple[int, int]] = []
        ranges = list(self.beyond)
        for at in self.recent:
            for block in ranges:
                if block[0] <= at < block[1] and block not in blocks:
                    blocks.append(block)
        blocks += [block for block in ranges if block not in blocks]
        return blocks[:most]
