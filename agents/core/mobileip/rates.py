"""Token buckets for many keys in bounded memory."""

from collections import OrderedDict
from collections.abc import Hashable


class TokenBuckets:
    """One bucket for each key: `burst` tokens, `rate_per_s` new ones. The least recently used of more than `keys_max` goes.

    A key that was dropped starts again with a full bucket: an upper bound over all keys needs a bucket of its own.
    """

    __slots__ = ("_buckets", "_burst", "_keys_max", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, keys_max: int = 4096) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, now_s: float) -> bool:
        """Take a token; False when there is none. Time that runs backwards adds none."""
        found = self._buckets.get(key)
        tokens, then_s = (self._burst, now_s) if found is None else found
        now_s = max(now_s, then_s)
        tokens = min(self._burst, tokens + (now_s - then_s) * self._rate_per_s)
        granted = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if granted else tokens, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return granted
