"""Makes aiortc's ICE agent a lite one: it answers checks and never sends any, as WhatsApp's media relay does.

RFC 8445 section 2.5: a lite agent that meets a full one is always controlled, has host candidates only, and takes the
pair that the other side nominates. aioice is a full agent; the methods that make it so are replaced on one connection.
"""

import aioice.ice
import aiortc.rtcpeerconnection
from aioice import stun
from aioice.ice import CandidatePair

# aioice leaves loopback out, and these calls may use nothing else.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
# WhatsApp names its media section so; aiortc would say "0".
aiortc.rtcpeerconnection.allocate_mid = lambda mids: mids.add("audio") or "audio"


class LiteAgent:
    """Hooks on one aioice connection, and what they saw."""

    def __init__(self, connection, username, password):
        self.connection = connection
        self.checks = []  # of the other side, once the answer is applied: (role, whether it nominates)
        self.requests_sent = 0
        connection._local_username, connection._local_password = username, password
        connection._tie_breaker = 0  # who claims to be controlled too gets 487, as from WhatsApp
        connection._unfreeze_initial = lambda: None
        connection._check_periodic = lambda: False
        connection.check_start_task = self._take_pair
        connection.query_consent = self._no_consent_checks
        self._take_check, connection.check_incoming = connection.check_incoming, self._note_check

    def watch(self):
        """Counts what is sent; call it once the sockets exist."""
        self.connection.ice_controlling = False
        for protocol in self.connection._protocols:
            protocol.send_stun = self._counting(protocol.send_stun)

    def _counting(self, send):
        def counted(message, address):
            self.requests_sent += message.message_class == stun.Class.REQUEST
            send(message, address)

        return counted

    def _take_pair(self, pair):
        """An authentic check is all that a lite agent needs to call the pair valid."""
        self.connection.check_state(pair, CandidatePair.State.SUCCEEDED)

    async def _no_consent_checks(self):
        """A lite agent never asks for consent."""

    def _note_check(self, message, address, protocol):
        roles = [name for name in ("ICE-CONTROLLING", "ICE-CONTROLLED") if name in message.attributes]
        self.checks.append((" ".join(roles), "USE-CANDIDATE" in message.attributes))
        self._take_check(message, address, protocol)
