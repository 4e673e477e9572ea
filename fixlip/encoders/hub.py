"""The Hugging Face Hub: fetched from where it is in reach, and given up on at once where not."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator

from huggingface_hub import constants as hub

from fixlip.encoders.checkpoint import first_line


@contextlib.contextmanager
def from_hub(what: str, advice: str) -> Iterator[None]:
    """Fetch from the Hugging Face Hub, or from its cache at once where the Hub is out of reach.

    The Hub's own client repeats every request with growing pauses, minutes in all, before it gives
    up, and then says little; what is cached is found without it. While the block runs, the client's
    global switch HF_HUB_OFFLINE is set to whether the Hub is out of reach.
    """
    before, offline = hub.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE or not reachable(hub.ENDPOINT)
    hub.HF_HUB_OFFLINE = offline
    try:
        yield
    except Exception as error:
        reason = "the Hugging Face Hub cannot be reached" if offline else first_line(error)
        raise ConnectionError(f"{what} could not be fetched: {reason}; {advice}") from None
    finally:
        hub.HF_HUB_OFFLINE = before


def reachable(address: str) -> bool:
    """Whether anything answers at an address within three seconds."""
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=3):
            return True
    except urllib.error.HTTPError:  # an answer, of whatever kind
        return True
    except (OSError, ValueError):
        return False
